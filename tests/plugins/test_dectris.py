"""DECTRIS Stream V1 and V2: real recordings, pushed through a real socket."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import cbor2
import numpy as np
import pytest
from dectris.compression import decompress

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.plugins.sources.dectris import Decoder
from phasewatch.plugins.sources.found import Frame
from phasewatch.plugins.sources.stream import Stream

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


def numbered(source: Stream) -> list[tuple[int, Any]]:
    """Return (id, frame or error) of all items; their seq are contiguous."""
    found: list[tuple[int, Any]] = []
    seqs: list[int] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.id, item.error))
            seqs.append(item.seq)
        elif item is not None:
            found += zip(item.ids.tolist(), item.arrays["frame"].copy(), strict=True)
            seqs += item.seq.tolist()
    assert seqs == list(range(len(seqs)))
    return found


def ids(found: list[tuple[int, Any]]) -> list[int]:
    return [number for number, item in found if isinstance(item, np.ndarray)]


def errors(found: list[tuple[int, Any]]) -> dict[int, str]:
    return {number: item for number, item in found if isinstance(item, str)}


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
    found = numbered(source)
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
    bits = _tag(_tag(cbor2.loads(v2_recording[0][0])["pixel_mask"]["threshold_1"])[1][1])[1]
    mask = np.frombuffer(bits, "<u4").reshape(1065, 1030)
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
