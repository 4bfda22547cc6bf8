"""JSON and blob streams through real sockets: array-1.0, STINS of one detector or of modules."""

import json
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.calibration.lambda_modules import ModuleLayout
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources.json_stream import Decoder
from phasewatch.plugins.sources.module_sets import WINDOW
from phasewatch.plugins.sources.stream import Began, Ended, Frame, Lost, Stream

from .streamed import compressed, read

Attach = Callable[..., tuple[Stream, Any]]
Parts = list[bytes]
SHAPE = (6, 20)
PLACES = ((0, 0), (-2, 8), (1, 17), (0, 25))  # x, y of four modules
N = len(PLACES)


def counts(number: int, dtype: str = "<u2", module: int = 0) -> np.ndarray:
    return (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) + number + 40 * module).astype(dtype)


def bslz4(array: np.ndarray, *, header: bool = True) -> bytes:
    """Compress as HDF5 does, or as `bitshuffle.compress_lz4`, which leaves the header out."""
    return compressed(array, "bslz4")[0 if header else 12 :]


def parts(header: dict[str, Any], *more: bytes) -> Parts:
    return [json.dumps(header).encode(), *more]


def array_1_0(number: int, array: np.ndarray, blob: bytes | None = None, **more: Any) -> Parts:
    header = {"htype": "array-1.0", "shape": list(array.shape), "type": array.dtype.name}
    return parts({**header, "frame": number, **more}, array.tobytes() if blob is None else blob)


class Stins:
    """A sender of the MAX IV form; `msg_number` runs on."""

    def __init__(self, number: int = 0) -> None:
        self.number = number - 1

    def header(self, meta: dict[str, Any] | None = None) -> Parts:
        second = [] if meta is None else [json.dumps(meta).encode()]
        return self._parts({"htype": "header", "filename": ""}, *second)

    def image(
        self, frame: int, array: np.ndarray, *, blob: bytes | None = None, **more: Any
    ) -> Parts:
        header = {"htype": "image", "frame": frame, "shape": list(array.shape)}
        header |= {"type": array.dtype.name, "compression": "none", **more}
        return self._parts(header, array.tobytes() if blob is None else blob)

    def end(self) -> Parts:
        return self._parts({"htype": "series_end"})

    def lose(self) -> None:
        self.number += 1

    def _parts(self, header: dict[str, Any], *more: bytes) -> Parts:
        self.number += 1
        return parts({**header, "msg_number": self.number}, *more)


def check(found: list[tuple[int, Any]], numbers: list[int], dtype: str = "<u2") -> None:
    assert [number for number, _ in found] == numbers
    for number, image in found:
        np.testing.assert_array_equal(image, counts(number, dtype))


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i4", "<f4", "<f8"])
def test_array(attached: Attach, dtype: str) -> None:
    source, sender = attached("json", idle_timeout_s=0.2)
    sender.send(array_1_0(4, counts(4, dtype)), array_1_0(9, counts(9, dtype)))
    run = source.start()
    top = None if dtype[1] == "f" else np.iinfo(dtype).max
    assert (run.items, run.saturation) == ({"frame": ItemSpec.of(SHAPE, dtype)}, top)
    check(read(source), [4, 9], dtype)


@pytest.mark.parametrize("spelling", ["endianness", "endianess"])
def test_array_of_the_other_byte_order(attached: Attach, spelling: str) -> None:
    source, sender = attached("json", idle_timeout_s=0.2)
    sender.send(array_1_0(1, counts(1, ">u4"), **{spelling: "big"}))
    sender.send(array_1_0(2, counts(2, "<u4"), **{spelling: "little"}))
    source.start()
    check(read(source), [1, 2], "<u4")


def test_array_of_areadetector(attached: Attach) -> None:
    """As NDPluginZMQ writes it, and as it did before 1.4: x first, the type in a list."""
    source, sender = attached("json", idle_timeout_s=0.2)
    more = {"timeStamp": 1e9, "ndattr": {"ColorMode": 0}}
    sender.send(array_1_0(1, counts(1), encoding="", **more))
    sender.send(array_1_0(2, counts(2), bslz4(counts(2), header=False), encoding="bslz4", **more))
    sender.send(array_1_0(3, counts(3), htype=["array-1.0"], shape=list(SHAPE[::-1]), **more))
    sender.send(array_1_0(4, counts(4), encoding="blosc", **more))
    source.start()
    items = [item for item in source if item is not None]
    assert [item.t_acq for item in items[:3]] == [None] * 3  # of which epoch, nobody says
    assert items[3].error == "encoding 'blosc' is not one of none, lz4, bslz4"
    assert [int(item.ids[0]) for item in items[:3]] == [1, 2, 3]


def test_array_published_to_a_bound_subscriber() -> None:
    source = open_source("json:tcp://127.0.0.1:*", socket="sub", bind=True, idle_timeout_s=0.2)
    assert isinstance(source, Stream)
    source.connect()
    context = zmq.Context()
    try:
        socket = context.socket(zmq.XPUB)
        socket.connect(source.address)
        while not socket.poll(10):  # a subscriber that bound says so when it looks
            assert source._feed.receive(1) is None
        assert socket.recv() == b"\x01"
        socket.send_multipart(array_1_0(1, counts(1)))
        source.start()
        check(read(source), [1])
    finally:
        source.close()
        context.destroy(linger=0)


def test_an_address_that_is_bound_is_loopback() -> None:
    with pytest.raises(PipelineError, match="without keys sockets bind to loopback only"):
        open_source("json:tcp://0.0.0.0:5555", bind=True)


@pytest.mark.parametrize("header", [True, False], ids=["with header", "without header"])
def test_stins(attached: Attach, header: bool) -> None:
    source, sender, peer = *attached("json"), Stins(500)
    sender.send(peer.header({"exptime": 1}), peer.image(0, counts(0)))
    blob = bslz4(counts(1), header=header)
    sender.send(peer.image(1, counts(1), blob=blob, compression="bslz4"), peer.end())
    run = source.start()
    assert (run.items, run.expected) == ({"frame": ItemSpec.of(SHAPE, "u2")}, None)
    check(read(source), [0, 1])
    assert not source.refused


def test_stins_without_an_end_and_an_empty_series(attached: Attach) -> None:
    source, sender, peer = *attached("json"), Stins()
    sender.send(peer.header(), peer.end())  # nothing says what its images would have been like
    sender.send(peer.header(), peer.image(0, counts(0)), peer.header(), peer.image(5, counts(5)))
    source.start()
    assert source.last_error == "not understood: the series of header 0 ended without an image"
    check(read(source), [0])


def test_stins_in_mid_series(attached: Attach) -> None:
    source, sender, peer = *attached("json"), Stins(7)
    sender.send(peer.image(3, counts(3)), peer.end(), peer.header(), peer.image(0, counts(0)))
    sender.send(peer.end())
    source.start()
    check(read(source), [0])
    assert source.refused["before a start"] == 2  # the image and the end
    source, sender = attached("json", join=True)
    sender.send(peer.image(3, counts(3)), peer.image(4, counts(4)), peer.header())
    sender.send(peer.image(0, counts(0)))
    source.start()
    check(read(source), [3, 4])
    source, sender = attached("json", join=True)
    sender.send(peer.image(3, counts(3)), peer.end(), peer.image(4, counts(4)))
    source.start()
    check(read(source), [3])


def test_stins_gaps_and_another_shape(attached: Attach) -> None:
    source, sender, peer = *attached("json"), Stins()
    sender.send(peer.header(), peer.image(0, counts(0)), peer.image(7, counts(7)))
    sender.send(peer.image(8, counts(8)[:-1]), peer.image(9, counts(9)), peer.end())
    source.start()
    found = read(source)
    check([found[k] for k in (0, 1, 3)], [0, 7, 9])
    assert found[2] == (8, "frame: uint16 (5, 20) came, not uint16 (6, 20)")


class Lambda:
    """Four modules that send as at MAX IV."""

    def __init__(self, sender: Any) -> None:
        self.sender, self.peers = sender, [Stins(90) for _ in range(N)]

    def header(self, **more: Any) -> None:
        for k, (x, y) in enumerate(PLACES):
            place = {"x": x, "y": y, "rotation": 0, "full_shape": [31, 23], **more}
            self.sender.send(self.peers[k].header(place), to=k)

    def image(self, number: int, *, without: tuple[int, ...] = (), **more: Any) -> None:
        for k, peer in enumerate(self.peers):
            if k in without:
                peer.lose()
                continue
            self.sender.send(peer.image(number, counts(number, module=k), **more), to=k)

    def end(self, *, without: tuple[int, ...] = ()) -> None:
        for k, peer in enumerate(self.peers):
            if k not in without:
                self.sender.send(peer.end(), to=k)


class Kept:
    """Keeps what is sent, by module."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.messages: list[list[Parts]] = [[] for _ in addresses]

    def send(self, *messages: Parts, to: int) -> None:
        self.messages[to] += messages


def assembled(number: int) -> np.ndarray:
    layout = ModuleLayout.from_translations(PLACES, [SHAPE] * N)
    return layout.assemble([counts(number, module=k) for k in range(N)])


def test_modules(attached: Attach) -> None:
    source, sender = attached("json", n=N)
    detector = Lambda(sender)
    detector.header()
    detector.image(0)
    detector.image(1, chunks=[1, *SHAPE], shape=[N, *SHAPE])
    detector.end()
    run = source.start()
    layout = ModuleLayout.from_translations(PLACES, [SHAPE] * N)
    assert run.items == {"frame": ItemSpec.of(layout.canvas_shape, np.int32)}
    mask = layout.assemble_mask([np.zeros(SHAPE, np.uint32)] * N)
    np.testing.assert_array_equal(run.constants["mask"], mask)
    for (number, frame), expected in zip(read(source), (0, 1), strict=True):
        assert number == expected
        np.testing.assert_array_equal(frame, assembled(number))


def test_modules_that_come_one_after_the_other(attached: Attach) -> None:
    """Each socket is far ahead of the next; nothing is lost."""
    source, sender = attached("json", n=N)
    detector = Lambda(sender)
    for k, (x, y) in enumerate(PLACES):
        sender.send(detector.peers[k].header({"x": x, "y": y}), to=k)
        images = [detector.peers[k].image(n, counts(n, module=k)) for n in range(9)]
        sender.send(*images, detector.peers[k].end(), to=k)
    source.start()
    found = read(source)
    assert [number for number, _ in found] == list(range(9))
    for number, frame in found:
        np.testing.assert_array_equal(frame, assembled(number))


def test_a_module_that_lost_a_message(attached: Attach) -> None:
    source, sender = attached("json", n=N)
    detector = Lambda(sender)
    detector.header()
    detector.image(0)
    detector.image(1, without=(1, 3))
    detector.image(2)
    detector.end()
    source.start()
    found = dict(read(source))
    assert set(found) == {0, 1, 2}
    one, three = (f"module {k + 1} ({sender.addresses[k]})" for k in (1, 3))
    assert found[1] == f"message 92: not sent by {one}, {three}"
    np.testing.assert_array_equal(found[2], assembled(2))


@pytest.mark.parametrize("order", list(permutations(range(N))))
def test_a_lost_message_is_told_whichever_socket_comes_first(order: tuple[int, ...]) -> None:
    addresses = [f"tcp://127.0.0.1:{k + 1}" for k in range(N)]
    kept = Kept(addresses)
    detector = Lambda(kept)
    detector.header()
    detector.image(0)
    detector.image(1, without=(1, 3))
    detector.end()
    decode = Decoder(addresses)
    found = [
        what
        for k in order
        for message in kept.messages[k]
        for what in decode((k, [memoryview(part) for part in message]))
    ]
    began, frame, lost, ended = found
    assert isinstance(began, Began)
    assert isinstance(frame, Frame)
    assert isinstance(lost, Lost)
    assert isinstance(ended, Ended)
    assert (frame.id, lost.id) == (0, 1)


def test_a_module_that_is_gone_is_not_waited_for(attached: Attach) -> None:
    """By count of younger messages in the run, and at its end by silence."""
    source, sender = attached("json", n=N, idle_timeout_s=0.5)
    detector = Lambda(sender)
    detector.header()
    detector.image(0)
    for number in range(1, WINDOW + 10):
        detector.image(number, without=(2,))
    detector.end(without=(2,))
    source.start()
    found = read(source)
    assert sorted(number for number, _ in found) == list(range(WINDOW + 10))
    assert all("not sent by module 3" in error for number, error in found if number)


def test_modules_that_do_not_agree(attached: Attach) -> None:
    source, sender = attached("json", n=N)
    detector = Lambda(sender)
    detector.header()
    detector.image(0)
    for k, peer in enumerate(detector.peers):
        sender.send(peer.image(1 + (k == 3), counts(1, module=k)), to=k)
    for k, peer in enumerate(detector.peers):
        blob = b"short" if k == 2 else None
        sender.send(peer.image(2, counts(2, module=k), blob=blob), to=k)
    detector.image(3)
    detector.end()
    source.start()
    found = dict(read(source))
    assert "sent image 1" in found[1]
    assert f"module 4 ({sender.addresses[3]}) sent image 2" in found[1]
    assert found[2] == f"module 3 ({sender.addresses[2]}): raw: 5 bytes came, 240 are due"
    np.testing.assert_array_equal(found[3], assembled(3))


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ({"rotation": 90}, "rotation 90: only modules that are not rotated"),
        ({"x": None}, "x: Input should be a valid number"),
        ({"x": 1e300}, "translation: all values must be finite"),
        ({"y": 0}, "two modules overlap"),
        ({"full_shape": [2000, 2000]}, "full_shape (2000, 2000), but they reach (31, 23)"),
    ],
)
def test_modules_that_cannot_be_laid_out(
    attached: Attach, place: dict[str, Any], error: str
) -> None:
    source, sender = attached("json", n=N, idle_timeout_s=0.3)
    detector = Lambda(sender)
    detector.header(**place)
    detector.image(0)
    with capture_logs() as logs, pytest.raises(PipelineError, match=r"no run in 0\.3 s"):
        source.start()
    said = [log["text"] for log in logs if log["event"] == "message refused"]
    assert any(error in text for text in said) or error in source.last_error


def test_modules_resumed_in_another_process(attached: Attach) -> None:
    source, sender = attached("json", n=N)
    detector = Lambda(sender)
    detector.header()
    detector.image(0)
    run = source.start()
    source.close()
    again, detector.sender = attached("json", n=N)
    detector.image(1)
    detector.end()
    again.resume(run, 1)
    [item] = [item for item in again if item is not None]
    assert (int(item.seq[0]), int(item.ids[0])) == (1, 1)
    np.testing.assert_array_equal(item.arrays["frame"][0], assembled(1))


def test_modules_cannot_be_joined() -> None:
    with pytest.raises(PipelineError, match="only the header says where each module sits"):
        open_source("json:tcp://a:9010,tcp://a:9011", join=True)


def test_the_server_is_gone(attached: Attach) -> None:
    source, _ = attached("json", idle_timeout_s=0.2)
    with pytest.raises(PipelineError, match=r"no run in 0\.2 s; nothing came"):
        source.start()


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ([b"\xd9\xd9\xf7\xa0"], "self-described CBOR, as of DECTRIS Stream V2"),
        ([b'{"htype":"dheader-1.0"}', b"{}"], "2 parts, JSON with htype 'dheader-1.0'"),
        ([b'{"htype":"chunk-1.0"}', b"x"], "not array-1.0, header, image or series_end"),
        ([b"\x80\x04\x95."], "a Python pickle"),
    ],
)
def test_another_protocol_is_named(attached: Attach, message: Parts, seen: str) -> None:
    source, sender = attached("json", idle_timeout_s=0.2)
    sender.send(message)
    with pytest.raises(PipelineError, match="1 refused, last: not understood") as raised:
        source.start()
    assert seen in str(raised.value)


def test_hostile_messages_among_arrays(attached: Attach, hostile: Parts) -> None:
    source, sender = attached("json", idle_timeout_s=0.2)
    sender.send(hostile, array_1_0(0, counts(0)), hostile, array_1_0(1, counts(1)))
    source.start()
    found = read(source)
    check([item for item in found if item[0] != 77], [0, 1])
    assert all(isinstance(error, str) for number, error in found if number == 77)


@pytest.mark.parametrize("n", [1, N], ids=["one", "modules"])
def test_hostile_messages_in_a_series(attached: Attach, hostile: Parts, n: int) -> None:
    source, sender = attached("json", n=n)
    sender.send(hostile)
    if n == 1:
        peer = Stins(90)
        sender.send(peer.header(), peer.image(0, counts(0)), hostile, peer.image(1, counts(1)))
        sender.send(peer.end())
    else:
        detector = Lambda(sender)
        detector.header()
        detector.image(0)
        sender.send(hostile)
        detector.image(1)
        detector.end()
    source.start()
    found = read(source)
    good = [(number, frame) for number, frame in found if number != 77]
    expected = counts if n == 1 else assembled
    assert [number for number, _ in good] == [0, 1]
    for number, frame in good:
        np.testing.assert_array_equal(frame, expected(number))
    assert all(isinstance(error, str) for number, error in found if number == 77)
