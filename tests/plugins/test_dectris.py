"""DECTRIS Stream V1 and V2: real recordings, pushed through a real socket."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pyFAI
import pytest
from dectris.compression import decompress

from phasewatch.calibration.calibration import Calibration
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.stages.integrate import Integrate
from phasewatch.plugins.sources.dectris import Decoder
from phasewatch.plugins.sources.found import Frame
from phasewatch.plugins.sources.stream import Stream

from .streamed import read

Attach = Callable[..., tuple[Stream, Any]]
Messages = list[list[bytes]]
V1_END = [b'{"htype":"dseries_end-1.0","series":14}']
SPEC = ItemSpec.of((1065, 1030), np.uint32)


def v1_image(parts: list[bytes]) -> np.ndarray:
    """Decode an image of the V1 recording as DECTRIS does."""
    header = json.loads(parts[1])
    data = decompress(parts[2], "bslz4", elem_size=4)
    return np.frombuffer(data, "<u4").reshape(header["shape"][::-1])


def v2_image(message: bytes) -> np.ndarray:
    """Decode an image of the V2 recording as DECTRIS does."""
    _, [shape, typed] = _tag(cbor2.loads(message)["data"]["threshold_1"])
    codec, size, data = _tag(_tag(typed)[1])[1]
    return np.frombuffer(decompress(data, codec, elem_size=size), "<u4").reshape(shape)


def _tag(tag: Any) -> tuple[int, Any]:
    return tag.tag, tag.value


def ids(found: list[tuple[int, Any]]) -> list[int]:
    return [number for number, item in found if isinstance(item, np.ndarray)]


def test_v1_recording(attached: Attach, v1_recording: Messages) -> None:
    source, sender = attached("dectris")
    sender.send(*v1_recording, V1_END)
    run = source.start()
    assert run.items == {"frame": SPEC}
    assert (run.expected, run.saturation) == (100_000, 2943294)
    assert run.wavelength_m == pytest.approx(1.5498024804150032e-10, rel=1e-12)
    mask = np.frombuffer(v1_recording[0][5], "<u4").reshape(1065, 1030)
    np.testing.assert_array_equal(run.constants["mask"], mask != 0)
    assert run.constants["mask"].sum() == 38129  # number_of_excluded_pixels
    found = read(source)
    assert ids(found) == list(range(9))
    for (_, frame), parts in zip(found, v1_recording[1:], strict=True):
        np.testing.assert_array_equal(frame, v1_image(parts))
    assert not source.refused


def test_v2_recording(attached: Attach, v2_recording: Messages) -> None:
    source, sender = attached("dectris")
    sender.send(*v2_recording)
    run = source.start()
    assert run.items == {"frame": SPEC}
    assert (run.expected, run.saturation) == (10, 2943294)
    assert run.wavelength_m == pytest.approx(1.5498024804150032e-10, rel=1e-12)
    mask = _v2_mask(v2_recording[0][0]).reshape(SPEC.shape)
    np.testing.assert_array_equal(run.constants["mask"], (mask & 0x7FFFFFFF) != 0)
    times: list[int] = []
    frames: list[np.ndarray] = []
    for item in source:
        if isinstance(item, Batch):
            assert item.t_acq is not None
            times += item.t_acq.tolist()
            frames += list(item.arrays["frame"].copy())
    for frame, [message] in zip(frames, v2_recording[1:-1], strict=True):
        np.testing.assert_array_equal(frame, v2_image(message))
    began = datetime(2024, 3, 7, 13, 43, 35, 200000, UTC)
    assert times[0] == int(began.timestamp()) * 10**9 + 200_000_000
    assert times[1] - times[0] == 49999873 * 10**9 // 50000000
    assert not source.refused


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_no_copy_but_the_decoder_s_own(
    version: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where ZeroMQ received an image to lent memory, by addresses and by what is allocated."""
    messages: Messages = request.getfixturevalue(f"{version}_recording")
    received = [memoryview(part) for part in messages[1]]
    decode = Decoder()
    list(decode((0, [memoryview(part) for part in messages[0]])))
    lent = np.full(SPEC.shape, 77, SPEC.dtype)

    [*_, frame] = decode((0, received))
    assert isinstance(frame, Frame)
    data = frame.write.__self__.data
    source = np.frombuffer(received[2 if version == "v1" else 0], np.uint8)
    assert np.shares_memory(np.frombuffer(data, np.uint8), source)
    frame.write(lent)  # compiled by now
    lent[...] = 77
    tracemalloc.start()
    [frame] = decode((0, received))
    frame.write(lent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < min(lent.nbytes, data.nbytes)  # an image of 25 kB, decoded 4.4 MB
    expected = v1_image(messages[1]) if version == "v1" else v2_image(messages[1][0])
    np.testing.assert_array_equal(lent, expected)


def test_frames_lie_in_lent_memory(attached: Attach, v2_recording: Messages) -> None:
    source, sender = attached("dectris")
    sender.send(*v2_recording)
    run = source.start()
    lent: list[np.ndarray] = []

    def allocate(n: int) -> Mapping[str, np.ndarray]:
        lent.append(np.full((n, *run.items["frame"].shape), 77, np.uint32))
        return {"frame": lent[-1]}

    source.lend(allocate)
    items = [item for item in source if item is not None]
    assert len(items) == len(lent) == 10
    for item, memory, [message] in zip(items, lent, v2_recording[1:-1], strict=True):
        assert isinstance(item, Batch)
        assert np.shares_memory(item.arrays["frame"], memory)
        np.testing.assert_array_equal(memory[0], v2_image(message))


PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {{"pixel1": 7.5e-05, "pixel2": 7.5e-05, "max_shape": [1065, 1030]}}
Distance: 0.2
Poni1: 0.04
Poni2: 0.039
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: {wavelength}
"""
WAVELENGTH = 1.5498024804150032e-10


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.patterns: list[np.ndarray] = []
        self.failures_: list[Failure] = []

    def start(self, run: RunStart) -> None:
        self.axis = run.constants["axis"]

    def batch(self, batch: Batch) -> None:
        self.patterns += list(batch.arrays["intensity"].copy())

    def failures(self, failures: Any) -> None:
        self.failures_ += failures

    def stop(self, stop: Any) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_through_the_chain(
    attached: Attach, version: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """As pyFAI integrates what DECTRIS decodes, with the mask and the saturation of the header."""
    messages: Messages = request.getfixturevalue(f"{version}_recording")
    (tmp_path / "d.poni").write_text(PONI.format(wavelength=WAVELENGTH))
    calibration = Calibration.load(tmp_path / "d.poni")
    source, sender = attached("dectris")
    sender.send(*messages, *([V1_END] if version == "v1" else []))
    sink = Kept()
    stop = replay(source, [Integrate(calibration, n_bins=500)], sink)
    n = 9 if version == "v1" else 10
    assert (stop.loss.received, stop.loss.classified) == (n, n)
    assert stop.loss.expected == (100_000 if version == "v1" else 10)
    frames = [v1_image(m) if version == "v1" else v2_image(m[0]) for m in messages[1 : n + 1]]
    mask = np.frombuffer(messages[0][5], "<u4") if version == "v1" else _v2_mask(messages[0][0])
    invalid = (mask.reshape(SPEC.shape) & 0x7FFFFFFF) != 0
    reference = pyFAI.load(str(tmp_path / "d.poni"))
    for frame, pattern in zip(frames, sink.patterns, strict=True):
        axis, intensity = reference.integrate1d(
            frame.astype(float),
            500,
            unit="2th_deg",
            mask=invalid | (frame > 2943293),
            method=("no", "csr", "cython"),
        )
        np.testing.assert_allclose(sink.axis, axis, rtol=1e-6)
        filled = np.isfinite(pattern)
        np.testing.assert_allclose(
            pattern[filled], intensity[filled], atol=1e-6 * intensity.max(), rtol=0
        )


def _v2_mask(start: bytes) -> np.ndarray:
    bits = cbor2.loads(start)["pixel_mask"]["threshold_1"]
    return np.frombuffer(_tag(_tag(bits)[1][1])[1], "<u4")


def test_a_wavelength_that_disagrees(
    attached: Attach, v2_recording: Messages, tmp_path: Path
) -> None:
    (tmp_path / "d.poni").write_text(PONI.format(wavelength=1e-10))
    source, sender = attached("dectris")
    sender.send(*v2_recording[:2])
    stage = Integrate(Calibration.load(tmp_path / "d.poni"), n_bins=500)
    with pytest.raises(PipelineError, match=r"1e-10 m, but the source says 1\.5498e-10 m"):
        stage.start(source.start())
