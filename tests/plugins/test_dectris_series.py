"""Series of small images as DECTRIS detectors send them: what goes wrong, what is made of it."""

import json
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources.stream import Stream

from .streamed import compressed, read

Attach = Callable[..., tuple[Stream, Any]]
Parts = list[bytes]
SHAPE = (6, 20)
TYPED = {"u1": 64, "<u2": 69, "<u4": 70, ">u2": 65, ">u4": 66, "<i4": 78, "<f4": 85, "<i2": 77}


def counts(number: int, dtype: str = "<u2", shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Counts that tell image and pixel apart."""
    return (np.arange(shape[0] * shape[1]).reshape(shape) + number).astype(dtype)


class V1:
    """What a detector with Stream V1 sends."""

    def start(self, series: int = 1, n: int = 3, *, detail: str = "basic", **more: Any) -> Parts:
        head = {"htype": "dheader-1.0", "series": series, "header_detail": detail}
        config = {"x_pixels_in_detector": SHAPE[1], "y_pixels_in_detector": SHAPE[0]}
        config |= {"bit_depth_image": 16, "nimages": n, "ntrigger": 1, **more}
        parts = [json.dumps(head).encode()]
        return parts if detail == "none" else [*parts, json.dumps(config).encode()]

    def image(
        self, series: int, number: int, array: np.ndarray, codec: str = "bslz4", **more: Any
    ) -> Parts:
        order = ">" if array.dtype.byteorder == ">" else "<"
        bits = 8 * array.dtype.itemsize
        blob = array.tobytes() if codec == "raw" else compressed(array, codec.removeprefix("bare "))
        if codec == "bare lz4":
            blob = blob[16:]  # of its only block
        encoding = {"raw": "", "bslz4": f"bs{bits}-lz4"}.get(codec, "lz4") + order
        described = {"htype": "dimage_d-1.0", "shape": list(array.shape[::-1]), "size": len(blob)}
        described |= {"type": array.dtype.name, "encoding": encoding, **more}
        head = {"htype": "dimage-1.0", "series": series, "frame": number, "hash": ""}
        times = {"htype": "dconfig-1.0", "start_time": 10, "stop_time": 20, "real_time": 10}
        return [
            json.dumps(head).encode(),
            json.dumps(described).encode(),
            blob,
            json.dumps(times).encode(),
        ]

    def end(self, series: int = 1) -> Parts:
        return [json.dumps({"htype": "dseries_end-1.0", "series": series}).encode()]


class V2:
    """What a detector with Stream V2 sends."""

    def start(self, series: int = 1, n: int = 3, **more: Any) -> Parts:
        fields = {"type": "start", **self._series(series), "image_size_x": SHAPE[1]}
        fields |= {"image_size_y": SHAPE[0], "image_dtype": "uint16", "number_of_images": n}
        fields |= {"channels": ["threshold_1"], "user_data": {"a": [1, None, True, 2.5]}, **more}
        return [message(fields)]

    def image(
        self, series: int, number: int, array: np.ndarray, codec: str = "bslz4", **more: Any
    ) -> Parts:
        data: Any = array.tobytes()
        if codec != "raw":
            size = array.dtype.itemsize if codec == "bslz4" else 0
            data = cbor2.CBORTag(56500, [codec, size, compressed(array, codec)])
        tag = TYPED[array.dtype.str.lstrip("|")]
        image = cbor2.CBORTag(40, [list(array.shape), cbor2.CBORTag(tag, data)])
        fields = {"type": "image", **self._series(series), "image_id": number}
        fields |= {"data": {"threshold_1": image}, **more}
        return [message(fields)]

    def end(self, series: int = 1) -> Parts:
        return [message({"type": "end", **self._series(series)})]

    def _series(self, series: int) -> dict[str, Any]:
        return {"series_id": series, "series_unique_id": f"U{series}"}


def message(fields: Any) -> bytes:
    return bytes(cbor2.dumps(cbor2.CBORTag(55799, fields)))


Detector = V1 | V2


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def detector(request: pytest.FixtureRequest) -> Detector:
    made: Detector = request.param()
    return made


def check(found: list[tuple[int, Any]], numbers: list[int], dtype: str = "<u2") -> None:
    """Check that `found` are just the images `numbers`."""
    assert [number for number, _ in found] == numbers
    for number, image in found:
        np.testing.assert_array_equal(image, counts(number, dtype))


def images(detector: Detector, series: int, *numbers: int, **more: Any) -> list[Parts]:
    return [detector.image(series, n, counts(n), **more) for n in numbers]


@pytest.mark.parametrize("codec", ["raw", "lz4", "bslz4"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", ">u2", ">u4"])
def test_encodings_and_types(attached: Attach, detector: Detector, codec: str, dtype: str) -> None:
    source, sender = attached("dectris")
    depth = {"bit_depth_image": 8 * np.dtype(dtype).itemsize}
    name = {"image_dtype": np.dtype(dtype).name}
    sender.send(detector.start(**(depth if isinstance(detector, V1) else name)))
    sender.send(detector.image(1, 7, counts(7, dtype), codec), detector.end())
    run = source.start()
    native = np.dtype(dtype).newbyteorder("=")
    assert run.items == {"frame": ItemSpec.of(SHAPE, native)}
    assert run.saturation == np.iinfo(native).max  # NODATA is never a count
    check(read(source), [7], dtype)


def test_v1_lz4_without_a_header(attached: Attach) -> None:
    source, sender = attached("dectris")
    sparse = counts(3) // 100
    sender.send(V1().start(), V1().image(1, 3, sparse, "bare lz4"), V1().end())
    source.start()
    [(_, image)] = read(source)
    np.testing.assert_array_equal(image, sparse)


def test_v1_header_without_details(attached: Attach) -> None:
    """What images are like, the first of them says."""
    source, sender = attached("dectris")
    sender.send(V1().start(detail="none"), *images(V1(), 1, 0, 1), V1().end())
    run = source.start()
    assert (run.expected, run.saturation, run.constants) == (None, 65535, {})
    check(read(source), [0, 1])


def test_v2_of_an_older_release(attached: Attach) -> None:
    """Its start does not say the type of images; they say the times, or do not."""
    source, sender = attached("dectris")
    timed = {"series_date": cbor2.CBORTag(0, "2026-01-01T00:00:00Z"), "start_time": [3, 2]}
    sender.send(V2().start(image_dtype=None), *images(V2(), 1, 0, **timed), *images(V2(), 1, 1))
    sender.send(V2().end())
    source.start()
    items = [item for item in source if item is not None]
    assert items[0].t_acq.tolist() == [1767225601_500_000_000]
    assert items[1] == Failure(1, 1, "source", "frame: it has no time, earlier ones had")


def test_times_that_are_not_there(attached: Attach) -> None:
    source, sender = attached("dectris")
    sender.send(V2().start(), *images(V2(), 1, 0, 1), V2().end())
    source.start()
    assert [item.t_acq for item in source if item is not None] == [None, None]


def test_one_of_several_channels(attached: Attach) -> None:
    channels = ["threshold_1", "threshold_2"]
    masks = {
        n: cbor2.CBORTag(
            40, [SHAPE, cbor2.CBORTag(70, (np.eye(*SHAPE) * k).astype("<u4").tobytes())]
        )
        for k, n in enumerate(channels, 1)
    }
    first, second = (
        cbor2.CBORTag(40, [SHAPE, cbor2.CBORTag(69, counts(k).tobytes())]) for k in (1, 2)
    )
    both = dict(zip(channels, (first, second), strict=True))
    source, sender = attached("dectris", channel="threshold_2")
    sender.send(V2().start(channels=channels, pixel_mask=masks), *images(V2(), 1, 2, data=both))
    sender.send(*images(V2(), 1, 3), V2().end())
    run = source.start()
    np.testing.assert_array_equal(run.constants["mask"], np.eye(*SHAPE, dtype=bool))
    [image, missing] = read(source)
    check([image], [2])
    assert missing == (3, "no channel threshold_2; there are threshold_1")


@pytest.mark.parametrize("channel", [None, "threshold_3"])
def test_a_channel_that_has_to_be_named(attached: Attach, channel: str | None) -> None:
    source, sender = attached("dectris", channel=channel)
    sender.send(V2().start(channels=["threshold_1", "threshold_2"]))
    with pytest.raises(PipelineError, match=r"channel = .* detector's: threshold_1, threshold_2"):
        source.start()


def test_saturation_of_the_header(attached: Attach) -> None:
    source, sender = attached("dectris")
    corrected = {"countrate_correction_applied": True, "countrate_correction_count_cutoff": 4000}
    sender.send(V1().start(**corrected))
    assert source.start().saturation == 4001  # 4000 is valid, NODATA and what is above is not


def test_a_mask_that_cannot_be_is_refused_with_its_header(attached: Attach) -> None:
    source, sender = attached("dectris")
    bad = {"threshold_1": cbor2.CBORTag(40, [list(SHAPE), cbor2.CBORTag(85, bytes(4))])}
    sender.send(V2().start(1, pixel_mask=bad), V2().start(2), *images(V2(), 2, 5), V2().end(2))
    source.start()
    assert "not understood: pixel mask" in source.last_error
    check(read(source), [5])


def test_a_missing_end_and_the_next_series(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    sender.send(detector.start(1), *images(detector, 1, 0, 1), detector.start(2))
    sender.send(*images(detector, 2, 0), detector.end(2))
    assert source.start().expected == 3
    with capture_logs() as logs:
        check(read(source), [0, 1])
    assert [log["event"] for log in logs] == ["another run began: this one is over"]


def test_a_missing_end_and_silence(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris", idle_timeout_s=0.2)
    sender.send(detector.start(), *images(detector, 1, 0, 1))
    source.start()
    with capture_logs() as logs:
        check(read(source), [0, 1])
    assert [log["event"] for log in logs] == ["idle: the run is over"]


def test_a_start_in_mid_series_waits_for_the_next(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    sender.send(*images(detector, 1, 5, 6), detector.end(1), detector.start(2))
    sender.send(*images(detector, 2, 0, 1, 2), detector.end(2))
    with capture_logs() as logs:
        run = source.start()
    assert run.settings["series"].startswith("2")
    assert "the next is waited for" in logs[0]["text"]
    assert source.refused == {"before a start": 3}
    check(read(source), [0, 1, 2])


def test_join_in_mid_series(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris", join=True)
    sender.send(*images(detector, 1, 5, 6), detector.end(1))
    with capture_logs() as logs:
        run = source.start()
    assert [log["event"] for log in logs] == ["joined a run whose start was not seen"]
    assert (run.expected, run.constants, run.saturation) == (None, {}, 65535)
    check(read(source), [5, 6])


def test_stray_images_of_an_aborted_series(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris", join=True)
    sender.send(detector.start(2), *images(detector, 1, 8), *images(detector, 2, 0))
    sender.send(detector.end(1), *images(detector, 1, 9), *images(detector, 2, 1), detector.end(2))
    source.start()
    check(read(source), [0, 1])
    assert source.refused == {"another series": 2}


def test_gaps_repeats_and_another_order(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    numbers = [0, 3, 2, 2, 9]
    sender.send(detector.start(n=10), *images(detector, 1, *numbers), detector.end())
    assert source.start().expected == 10  # what did not come is counted against it
    check(read(source), numbers)


def test_an_empty_series_is_a_run(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    sender.send(detector.start(), detector.end())
    assert source.start().expected == 3
    assert read(source) == []


def test_another_shape_or_type_in_mid_series(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    sender.send(detector.start(), *images(detector, 1, 0))
    sender.send(detector.image(1, 1, counts(1, shape=(7, 20))))
    sender.send(detector.image(1, 2, counts(2, "<u4")), *images(detector, 1, 3), detector.end())
    source.start()
    found = read(source)
    check([found[0], found[3]], [0, 3])
    assert found[1] == (1, "frame: uint16 (7, 20) came, not uint16 (6, 20)")
    assert found[2] == (2, "frame: uint32 (6, 20) came, not uint16 (6, 20)")


def test_resumed_in_another_process(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris")
    sender.send(detector.start(), *images(detector, 1, 0))
    run = source.start()
    source.close()
    again, sender = attached("dectris")
    sender.send(*images(detector, 1, 1), *images(detector, 7, 3), *images(detector, 1, 2))
    sender.send(detector.end())
    again.resume(run, 1)
    items = [item for item in again if item is not None]
    assert [(int(item.seq[0]), int(item.ids[0])) for item in items] == [(1, 1), (2, 2)]


def test_the_server_is_gone(attached: Attach) -> None:
    source, _ = attached("dectris", idle_timeout_s=0.2)
    with pytest.raises(PipelineError, match=r"no run in 0\.2 s; nothing came"):
        source.start()


@pytest.mark.parametrize(
    ("parts", "seen"),
    [
        ([b'{"htype":"array-1.0","shape":[2,2]}', b"1234"], "2 parts, JSON with htype 'array-1.0'"),
        (
            [b"\x82\xa6source\xa1x\xa7content\xa5array", b""],
            "2 parts, msgpack, as of a Karabo bridge",
        ),
        ([b"\x82\xa1v\x02\xa4body\x80"], "one part, msgpack, as of our own protocol (zmq:)"),
        ([b"\x80\x04\x95\x0b."], "one part, a Python pickle"),
        ([b"HTTP/1.1 400"], "one part, HTTP"),
        ([b'{"hello":1}'], "htype"),
    ],
)
def test_another_protocol_is_named(attached: Attach, parts: Parts, seen: str) -> None:
    source, sender = attached("dectris", idle_timeout_s=0.2)
    sender.send(parts)
    with pytest.raises(PipelineError, match="1 refused, last: not understood") as raised:
        source.start()
    assert seen in str(raised.value)


@pytest.mark.parametrize("port", [9999, 31001])
def test_a_detector_s_own_port_needs_a_word(port: int) -> None:
    uri = f"dectris:tcp://detector:{port}"
    with pytest.raises(PipelineError, match=r"others miss ours.*sole_consumer = true"):
        open_source(uri)
    open_source(uri, sole_consumer=True)
    open_source(uri, socket="sub")
    open_source("dectris:tcp://detector:9998")


def test_addresses_that_are_none() -> None:
    with pytest.raises(PipelineError, match="'detector:9998' is not tcp://HOST:PORT"):
        open_source("dectris:detector:9998")
    with pytest.raises(PipelineError, match="one address is expected"):
        open_source("dectris:tcp://a:1,tcp://b:1")


def test_from_a_relay_that_publishes(attached: Attach, detector: Detector) -> None:
    source, sender = attached("dectris", kind=zmq.XPUB, socket="sub")
    assert sender.sockets[0].recv() == b"\x01"  # it has subscribed
    sender.send(detector.start(), *images(detector, 1, 0), detector.end())
    source.start()
    check(read(source), [0])


def test_hostile_messages(attached: Attach, detector: Detector, hostile: Parts) -> None:
    source, sender = attached("dectris")
    sender.send(hostile, detector.start(), *images(detector, 1, 0), hostile)
    sender.send(*images(detector, 1, 1), detector.end())
    source.start()
    found = read(source)
    check([item for item in found if item[0] != 77], [0, 1])
    assert all(isinstance(error, str) for number, error in found if number == 77)
    assert source.refused.total() + len(found) in (3, 4)  # the first may be of a run not begun
