"""The source ``asapo:`` against a fake server that raises the errors of the real package.

The server of ASAP::O cannot be installed here. `Server` keeps what its documentation says of each
call, in the signatures of asapo-consumer; arrays are packed by the real seedee.
"""

import inspect
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources.asapo import connector, read_token
from phasewatch.plugins.sources.asapo_feed import AsapoFeed
from phasewatch.plugins.sources.asapo_files import Announced
from phasewatch.plugins.sources.asapo_pixels import PixelDecoder
from phasewatch.plugins.sources.lambda_follow import LambdaFollow
from phasewatch.plugins.sources.seedee_array import read_claim, unpack
from phasewatch.plugins.sources.stream import Stream

asapo = pytest.importorskip("asapo_consumer")
seedee = pytest.importorskip("seedee")

SECRET = "eyJhbGciOiJIUzI1NiJ9.secret"
SHAPE = (20, 30)
TIMEOUT_S = 0.1
Row = tuple[int, int, Any]  # seq, id, and the frame or the error
WAYS = [seedee.COMPRESSION_NONE, seedee.COMPRESSION_BITSHUFFLE, seedee.COMPRESSION_LZ4]
WAYS.append(seedee.COMPRESSION_DEFLATE)


def image(number: int, module: int = 1) -> np.ndarray:
    ramp = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE)
    return (ramp + 7 * number + 1000 * module) % 4000


def packed(array: np.ndarray, way: int = WAYS[1]) -> tuple[bytes, dict[str, Any]]:
    data, text = seedee.serialize(array, way)
    return bytes(data), {"_data_format": text}


class Server:
    """One data source of the broker, and a clock that it and the waiting advance.

    `streams` has, by name, {id: {substream: (name, data, meta of the user)}} of `expected` parts.
    Calls take the next of `then` first: what the producer does, or an error to be raised.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.streams: dict[str, dict[int, dict[int, tuple[str, bytes, Any]]]] = {}
        self.ended: dict[str, bytes] = {}
        self.expected = 1
        self.groups: dict[tuple[str, str], set[int]] = {}
        self.calls: list[str] = []
        self.then: Iterator[Any] = iter(())
        self.gone: set[int] = set()  # not in the cache any more

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds

    def put(
        self, number: int, array: np.ndarray, part: int = 0, stream: str = "s1", way: int = WAYS[1]
    ) -> None:
        data, meta = packed(array, way)
        self.streams.setdefault(stream, {}).setdefault(number, {})[part] = ("x", data, meta)

    def finish(self, stream: str = "s1", next_stream: bytes = b"s2") -> None:
        self.ended[stream] = next_stream

    def _meta(self, stream: str, number: int, part: int) -> dict[str, Any]:
        name, data, user = self.streams[stream][number][part]
        return {
            "_id": number,
            "size": len(data),
            "name": name,
            "timestamp": 1700046609395234833,
            "source": "somewhere",
            "buf_id": number,
            "dataset_substream": part,
            "ib": stream,
            "meta": user,
        }

    def _step(self) -> None:
        assert len(self.calls) < 20_000, "it asks for ever"
        step = next(self.then, None)
        if isinstance(step, Exception):
            raise step

    def _find(self, number: int, stream: str) -> None:
        """Raise what is raised where there is no message `number`."""
        there = self.streams.get(stream, {})
        if number in there:
            return
        self.now += TIMEOUT_S
        top = max(there, default=0)
        if stream in self.ended and number > top:
            raise asapo.AsapoStreamFinishedError("finished", top, self.ended[stream])
        if number > top:
            raise asapo.AsapoEndOfStreamError("end of stream", top)
        raise asapo.AsapoNoDataError("no data", number, top)

    def _handed(self, group: str, stream: str) -> int:
        handed = self.groups.setdefault((group, stream), set())
        there = self.streams.get(stream, {})
        left = sorted(set(there) - handed)
        if not left:
            self._find(max(there, default=0) + 1, stream)
        handed.add(left[0])
        return left[0]

    def _dataset(self, number: int, stream: str) -> dict[str, Any]:
        parts = self.streams[stream][number]
        content = [self._meta(stream, number, part) for part in sorted(parts, reverse=True)]
        found = {"id": number, "expected_size": self.expected, "content": content}
        if len(parts) < self.expected:
            self.now += TIMEOUT_S
            raise asapo.AsapoPartialDataError("partial data", found)
        return found

    def get_by_id(self, id, meta_only=True, stream=None):
        self.calls.append(f"get_by_id {id}")
        self._step()
        assert meta_only
        self._find(id, stream)
        return None, self._meta(stream, id, 0)

    def get_dataset_by_id(self, id, min_size=0, stream=None, substream=0):
        self.calls.append(f"get_dataset_by_id {id}")
        self._step()
        self._find(id, stream)
        return self._dataset(id, stream)

    def get_next(self, group_id, meta_only=True, stream=None, ordered=True):
        self.calls.append("get_next")
        assert not ordered, "deprecated"
        self._step()
        return None, self._meta(stream, self._handed(group_id, stream), 0)

    def get_next_dataset(self, group_id, min_size=0, stream=None, ordered=True, substream=0):
        self.calls.append("get_next_dataset")
        assert not ordered, "deprecated"
        self._step()
        return self._dataset(self._handed(group_id, stream), stream)

    def retrieve_data(self, meta):
        self.calls.append(f"retrieve_data {meta['_id']}")
        self._step()
        if meta["_id"] in self.gone:
            raise asapo.AsapoDataNotInCacheError(f"not in cache, token {SECRET}")
        _, data, _ = self.streams[meta["ib"]][meta["_id"]][meta["dataset_substream"]]
        return np.frombuffer(data, np.int8).copy()

    def get_current_size(self, stream=None):
        return len(self.streams.get(stream, {}))

    def get_stream_list(self, from_stream="", filter="all", detailed=True):
        assert not detailed, "deprecated"
        return [{"name": name} for name in self.streams]


def feed(server: Server, **options: Any) -> AsapoFeed:
    return AsapoFeed(
        "here:8400",
        lambda: server,
        "s1",
        secret=SECRET,
        clock=server.clock,
        wait=server.wait,
        **options,
    )


def pixels(
    server: Server, *, translations: Any = None, idle: float | None = None, **options: Any
) -> Stream:
    decoder = PixelDecoder("s1", translations)
    made = feed(server, **options)
    return Stream("asapo", made, decoder, idle_timeout_s=idle, clock=server.clock)


def rows(source: Any) -> list[Row]:
    found: list[Row] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.seq, item.id, item.error))
        elif isinstance(item, Batch):
            assert item.t_acq is None
            frames = item.arrays["frame"].copy()
            found += zip(item.seq.tolist(), item.ids.tolist(), frames, strict=True)
    source.close()
    return found


def assert_images(found: list[Row], numbers: list[int], first: int = 0) -> None:
    assert [(seq, i) for seq, i, _ in found] == list(enumerate(numbers, first))
    for _, number, frame in found:
        np.testing.assert_array_equal(frame, image(number))


@pytest.mark.parametrize(
    "name",
    [name for name in vars(Server) if name.startswith(("get_", "retrieve"))],
)
def test_the_fake_has_the_signatures_of_the_package(name: str) -> None:
    real = inspect.signature(getattr(asapo.PyConsumer, name))
    assert str(inspect.signature(getattr(Server, name))) == str(real)


@pytest.mark.parametrize("way", WAYS)
def test_pixels_in_order_to_the_end_of_the_stream(way: int) -> None:
    server = Server()
    for number in (1, 2, 3):
        server.put(number, image(number), way=way)

    def producer() -> Iterator[None]:
        yield from [None] * 20
        server.put(4, image(4), way=way)
        yield from [None] * 9
        server.finish()

    server.then = producer()
    source = pixels(server)
    with capture_logs() as logs:
        run = source.start()
        found = rows(source)
    assert (run.source, run.expected) == ("asapo:here:8400", None)
    assert (run.items["frame"].shape, run.items["frame"].dtype) == (SHAPE, "<u2")
    assert_images(found, [1, 2, 3, 4])
    assert {"event": "the stream is finished", "stream": "s1", "next": "s2"}.items() <= logs[
        -1
    ].items()
    assert not any("get_last" in call for call in server.calls), "that skips"


def test_message_that_is_not_there_although_later_ones_are() -> None:
    server = Server()
    for number in (1, 3, 4, 6):
        server.put(number, image(number))
    server.finish()
    source = pixels(server)
    source.start()
    began = server.now
    found = rows(source)
    assert [(i, what) for _, i, what in found if isinstance(what, str)] == [
        (2, "message 2 is not there, later ones are"),
        (5, "message 5 is not there, later ones are"),
    ]
    assert_images([row for row in found if row[1] < 2], [1])
    assert [i for _, i, _ in found] == [1, 2, 3, 4, 5, 6]
    assert 5 <= server.now - began < 11, "each may come for 5 s from when the stream was as long"


def test_message_that_comes_late_is_waited_for() -> None:
    server = Server()
    for number in (1, 3):
        server.put(number, image(number))
    server.finish()

    def producer() -> Iterator[None]:
        yield from [None] * 30
        server.put(2, image(2))

    server.then = producer()
    source = pixels(server)
    source.start()
    assert_images(rows(source), [1, 2, 3])


TRANSLATIONS = [(0.0, 0.0), (-2.0, 25.0), (-2.0, 50.0)]


def modules(server: Server, numbers: range, missing: Callable[[int, int], bool]) -> None:
    server.expected = 3
    for number in numbers:
        for module in (1, 2, 3):
            if not missing(number, module):
                server.put(number, image(number, module), part=module)


@pytest.mark.parametrize("group", [None, "g"])
def test_data_sets_are_assembled_as_files_are(group: str | None) -> None:
    server = Server()
    modules(server, range(1, 4), lambda number, module: (number, module) == (2, 3))
    server.finish()
    source = pixels(server, translations=TRANSLATIONS, datasets=True, group=group)
    run = source.start()
    assert (run.items["frame"].shape, run.items["frame"].dtype) == ((70, 32), "<i4")
    found = rows(source)
    assert [(seq, i) for seq, i, _ in found] == [(0, 1), (1, 2), (2, 3)]
    assert found[1][2] == "data set 2: 2 of 3 parts; missing: part 3"
    for _, number, frame in (found[0], found[2]):
        upright = frame[::-1]
        for module, row, column in ((1, 0, 2), (2, 25, 0), (3, 50, 0)):
            np.testing.assert_array_equal(
                upright[row : row + 20, column : column + 30], image(number, module)
            )
        assert np.count_nonzero(frame == -1) == 70 * 32 - 3 * 600


def test_module_that_is_late_is_waited_for() -> None:
    server = Server()
    modules(server, range(1, 4), lambda number, module: number == 2 and module > 1)

    def producer() -> Iterator[None]:
        yield from [None] * 20
        modules(server, range(1, 4), lambda *_: False)
        server.finish()

    server.then = producer()
    source = pixels(server, translations=TRANSLATIONS, datasets=True)
    source.start()
    found = rows(source)
    assert [i for _, i, _ in found] == [1, 2, 3]
    assert not any(isinstance(what, str) for *_, what in found)


def test_module_that_died_costs_its_patience_once() -> None:
    server = Server()
    modules(server, range(1, 101), lambda number, module: number > 1 and module == 2)
    server.finish()
    source = pixels(server, translations=TRANSLATIONS, datasets=True)
    source.start()
    began = server.now
    found = rows(source)
    assert [i for _, i, _ in found] == list(range(1, 101))
    assert {what for _, i, what in found if i > 1} == {
        f"data set {n}: 2 of 3 parts; missing: part 2" for n in range(2, 101)
    }
    assert server.now - began < 5 + 101 * TIMEOUT_S + 1


def test_group_is_handed_what_others_do_not_get() -> None:
    server = Server()
    for number in range(1, 7):
        server.put(number, image(number))
    server.finish()
    server.groups["g", "s1"] = {2, 5}  # another member has them
    source = pixels(server, group="g")
    source.start()
    found = rows(source)
    assert [i for _, i, _ in found] == [1, 3, 4, 6]
    assert not any(call.startswith("get_by_id") for call in server.calls)


def test_message_whose_data_could_not_be_fetched_is_asked_for_again() -> None:
    """The server goes between the message and its data; a group is handed it once only."""
    for group in (None, "g"):
        server = Server()
        for number in (1, 2, 3):
            server.put(number, image(number))
        server.finish()
        away = asapo.AsapoUnavailableServiceError("gone")
        server.then = iter([None, None, None, away, away, away])
        source = pixels(server, group=group)
        source.start()
        assert_images(rows(source), [1, 2, 3])


def test_server_that_goes_and_comes_back() -> None:
    server = Server()
    for number in (1, 2):
        server.put(number, image(number))
    server.finish()
    away = [asapo.AsapoUnavailableServiceError(f"refused, token {SECRET}")] * 8
    server.then = iter([None, None, *away])
    source = pixels(server)
    with capture_logs() as logs:
        source.start()
        began = server.now
        found = rows(source)
    assert_images(found, [1, 2])
    assert 0.5 + 1 + 2 + 4 + 4 * 8 <= server.now - began < 41, "it is asked ever less often"
    assert [log["event"] for log in logs] == [
        "the server does not answer",
        "the server is back",
        "the stream is finished",
    ]
    assert SECRET not in str(logs)
    assert "***" in str(logs)


def test_server_that_does_not_come_back() -> None:
    server = Server()
    server.put(1, image(1))
    source = pixels(server)
    source.start()

    def gone() -> Iterator[Exception]:
        while True:
            yield asapo.AsapoUnavailableServiceError("connection refused")

    began, server.then = server.now, gone()
    with pytest.raises(PipelineError) as error:
        list(source)
    source.close()
    assert str(error.value) == "asapo:here:8400: no answer for 60 s: connection refused"
    assert 60 < server.now - began < 70


def test_what_the_server_refuses_ends_the_run() -> None:
    server = Server()
    server.then = iter([asapo.AsapoWrongInputError(f"wrong token {SECRET}")])
    with pytest.raises(PipelineError, match=r"^asapo:here:8400: wrong token \*\*\*$"):
        pixels(server).start()


def test_stream_that_is_not_there_says_which_are() -> None:
    server = Server()
    server.put(1, image(1), stream="scan7")
    with capture_logs() as logs, pytest.raises(PipelineError) as error:
        pixels(server, idle=10.0).start()
    assert str(error.value) == "asapo:here:8400: no run in 10.0 s; nothing came"
    assert logs[0]["event"] == "no message yet"
    assert (logs[0]["stream"], logs[0]["streams"]) == ("s1", ["scan7"])
    assert logs[1]["event"] == "waiting for a run"


def test_empty_stream() -> None:
    server = Server()
    server.finish()
    with pytest.raises(PipelineError, match="stream s1 is finished, without a message that can"):
        pixels(server).start()


def test_idle_stream_ends() -> None:
    server = Server()
    server.put(1, image(1))
    source = pixels(server, idle=10.0)
    source.start()
    assert_images(rows(source), [1])


def test_data_that_are_gone_are_a_failure() -> None:
    server = Server()
    for number in (1, 2, 3):
        server.put(number, image(number))
    server.finish()
    server.gone = {2}
    source = pixels(server)
    source.start()
    found = rows(source)
    assert found[1] == (1, 2, "message 2: not in cache, token ***")
    assert_images([found[0]], [1])
    assert_images([found[2]], [3], first=2)


def test_bad_messages_are_failures_also_before_the_first_good_one() -> None:
    server = Server()
    for number in range(1, 7):
        server.put(number, image(number))
    server.put(6, image(6).astype(np.uint32))
    name, data, _ = server.streams["s1"][1][0]
    server.streams["s1"][1][0] = (name, data, {"_data_format": "{"})
    server.streams["s1"][2][0] = (name, data, [])
    _, _, good = server.streams["s1"][4][0]
    server.streams["s1"][4][0] = (name, data[:-3], good)
    server.finish()
    source = pixels(server)
    source.start()
    found = rows(source)
    assert [(seq, i) for seq, i, _ in found] == [(n - 1, n) for n in range(1, 7)]
    errors = {i: what for _, i, what in found if isinstance(what, str)}
    assert sorted(errors) == [1, 2, 4, 6]
    assert "meta._data_format is not JSON" in errors[1]
    assert "without meta" in errors[2]
    assert "bitshuffle-lz4" in errors[4]
    assert "uint32 (20, 30) came, not uint16 (20, 30)" in errors[6]
    assert source.refused["not understood"] == 2


@pytest.mark.parametrize("n", [0, 1, 3])
def test_new_process_goes_on_where_the_old_one_was(n: int) -> None:
    server = Server()
    for number in range(1, 5):
        server.put(number, image(number))
    server.finish()
    run = pixels(server).start()
    source = pixels(server)
    source.resume(run, n)
    assert_images(rows(source), list(range(n + 1, 5)), first=n)


def test_frames_are_written_where_the_receiver_wants_them() -> None:
    server = Server()
    server.put(1, image(1))
    server.finish()
    source = pixels(server)
    source.start()
    lent = np.full((1, *SHAPE), 77, np.uint16)
    source.lend(lambda n: {"frame": lent})
    [batch] = [item for item in source if item is not None]
    assert np.shares_memory(batch.arrays["frame"], lent)
    np.testing.assert_array_equal(lent[0], image(1))


# What an array claims to be


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["<u1", "<i2", ">u2", "<u4", ">i4", "<f4", "<f8", "<i8"])
def test_arrays_are_what_seedee_makes_of_them(way: int, dtype: str) -> None:
    array = np.random.default_rng(3).integers(0, 100, (13, 17)).astype(dtype)
    data, text = seedee.serialize(array, way)
    claim = read_claim(text)
    out = np.full((13, 17), 77, np.dtype(claim.spec.dtype))
    unpack(claim, np.frombuffer(bytes(data), np.uint8), out)
    np.testing.assert_array_equal(out, seedee.deserialize(bytes(data), text))
    np.testing.assert_array_equal(out, array)


DAMAGED = [(way, how) for way in WAYS for how in ("cut", "longer", "noise", "empty")]
DAMAGED.remove((seedee.COMPRESSION_DEFLATE, "longer"))  # zlib knows where its data end


@pytest.mark.parametrize(("way", "how"), DAMAGED)
def test_damaged_chunks(way: int, how: str) -> None:
    data, text = seedee.serialize(image(1), way)
    whole = bytes(data)
    chunk = {
        "cut": whole[: len(whole) // 2],
        "longer": whole + b"1234567",
        "noise": np.random.default_rng(1).bytes(len(whole) + 1),
        "empty": b"",
    }[how]
    out = np.zeros(SHAPE, np.uint16)
    with pytest.raises(PipelineError) as error:
        unpack(read_claim(text), np.frombuffer(chunk, np.uint8), out)
    assert "\n" not in str(error.value)


def test_lz4_in_many_blocks() -> None:
    """As other writers make them; every block but the last is full, one is not compressed."""
    array = np.zeros((64, 96), "<u2")
    array[:43, :48] = np.random.default_rng(1).integers(0, 1 << 16, (43, 48))
    raw, block = array.tobytes(), 4096
    blocks = []
    for at in range(0, len(raw), block):
        piece = raw[at : at + block]
        one = bytes(seedee.serialize(np.frombuffer(piece, "u1").reshape(1, -1), WAYS[2])[0])
        blocks.append(one[12:] if len(one) - 16 < len(piece) else one[12:16] + piece)
    chunk = len(raw).to_bytes(8, "big") + block.to_bytes(4, "big") + b"".join(blocks)
    claim = read_claim(seedee.serialize(array, WAYS[2])[1])
    out = np.full(array.shape, 77, "<u2")
    unpack(claim, np.frombuffer(chunk, np.uint8), out)
    np.testing.assert_array_equal(out, array)
    small = chunk[:8] + (16).to_bytes(4, "big") + chunk[12:]
    with pytest.raises(PipelineError, match="blocks of 16 bytes"):
        unpack(claim, np.frombuffer(small, np.uint8), out)


def test_seedee_itself_does_not_survive_a_false_description() -> None:
    """Why chunks are not given to it: should this fail one day, it may be trusted again."""
    program = (
        "import json, numpy as np, seedee\n"
        "data, text = seedee.serialize(np.zeros((64, 96), np.uint16), seedee.COMPRESSION_NONE)\n"
        "said = json.loads(text)\n"
        "said['array']['ndims'] = 1 << 30\n"
        "seedee.deserialize(bytes(data), json.dumps(said))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode != 0


BAD_CLAIMS: dict[str, Any] = {
    "shape": [[4], [0, 4], [-1, 4], ["4", "4"], [True, 4], 7, [1 << 20, 1 << 20], None],
    "itemsize": [3, 0, "2", None, True],
    "datatype": [ord("c"), ord("O"), "u", None],
    "byteorder": [0, "<", None],
    "stride": [[8, 1]],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_CLAIMS.items() for value in values]
)
def test_claims_that_are_none(key: str, value: Any) -> None:
    said = json.loads(seedee.serialize(image(1), WAYS[0])[1])
    said["array"][key] = value
    with pytest.raises(MessageError) as error:
        read_claim(json.dumps(said))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", None, 5, "[" * 3000, "9" * 5000, '{"protocol": "other"}']
)
def test_texts_that_are_no_claims(text: Any) -> None:
    with pytest.raises(MessageError):
        read_claim(text)


# Names of files


def announced(server: Server, root: Path, **options: Any) -> LambdaFollow:
    listing = Announced(feed(server, with_data=False, **options), root)
    return LambdaFollow(
        "asapo:here:8400",
        listing,
        3,
        options.pop("idle", None),
        clock=server.clock,
        wait=server.wait,
    )


def name_file(server: Server, number: int, name: Any) -> None:
    server.streams.setdefault("s1", {})[number] = {0: (name, b"", {})}


def test_files_that_are_announced(lambda_run: Callable[..., Path]) -> None:
    """In whatever order, and some before this host can see them."""
    folder = lambda_run()
    archive = open_source(f"lambda-nexus:{folder}")
    archive.start()
    expected = rows(archive)
    files = sorted(folder.iterdir(), key=lambda path: path.name[::-1])
    hidden = {path: path.read_bytes() for path in files[3:6]}
    for path in hidden:
        path.unlink()
    server = Server()

    def producer() -> Iterator[None]:
        for number, path in enumerate(files, 1):
            name_file(server, number, f"raw/{path.name}")
            yield from [None] * 4
        for path, content in hidden.items():
            path.write_bytes(content)
        server.finish()

    server.then = producer()
    source = announced(server, folder.parent)
    run = source.start()
    assert run.run_id == "run7"
    found = rows(source)
    assert [(seq, i) for seq, i, _ in found] == [(n - 1, n) for n in range(1, 13)]
    for (*_, frame), (*_, same) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(frame, same)
    assert not any(call.startswith("retrieve") for call in server.calls)


def test_end_of_the_stream_is_the_end_of_the_run(lambda_run: Callable[..., Path]) -> None:
    """Before the planned number of frames: an aborted scan, without its last part of module 2."""
    folder = lambda_run()
    server = Server()
    names = [path.name for path in sorted(folder.iterdir()) if "m2_part00002" not in path.name]
    for number, name in enumerate(names, 1):
        name_file(server, number, f"raw/{name}")
    (folder / "run7_m2_part00002.nxs").unlink()
    server.finish()
    source = announced(server, folder.parent)
    source.start()
    found = rows(source)
    assert [i for _, i, _ in found] == list(range(1, 13))
    assert [i for _, i, what in found if isinstance(what, str)] == [9, 10, 11, 12]


def test_names_that_are_not_taken(lambda_run: Callable[..., Path]) -> None:
    folder = lambda_run(parts=1)
    server = Server()
    bad = ["/etc/run7_m1_part00000.nxs", f"../{folder.name}/run7_m1_part00000.nxs", 5, "", None]
    bad += ["a\0b", "raw/notes.txt", "x" * 5000, "raw/run8_m1_part00000.nxs"]
    good = [f"raw/{path.name}" for path in sorted(folder.iterdir())]
    for number, name in enumerate([*bad[:-1], *good, bad[-1]], 1):
        name_file(server, number, name)
    server.finish()
    source = announced(server, folder.parent)
    with capture_logs() as logs:
        source.start()
        assert len(rows(source)) == 4
    assert [log for log in logs if log["event"] == "messages refused"] == [
        {
            "event": "messages refused",
            "log_level": "warning",
            "address": "here:8400",
            "not below the folder": 2,
            "no name": 5,
            "not a LAMBDA file": 1,
            "another run": 1,
        }
    ]


# Keys


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"modules": 3}, "modules: only with files"),
        ({"files": "/x"}, "files needs modules"),
        ({"files": "/x", "modules": 3, "group": "g"}, "neither translations nor group"),
        ({"datasets": True}, "datasets needs translations"),
        ({"translations": [[0, 0], [0, 5]]}, "translations of several modules go with datasets"),
        ({"token_file": "/nowhere/token"}, "token_file: /nowhere/token: No such file"),
    ],
)
def test_keys_that_do_not_go_together(options: dict[str, Any], text: str) -> None:
    with pytest.raises(PipelineError, match=text):
        open_source("asapo:here:8400", beamtime="11", source="lambda", **options)


@pytest.mark.parametrize("target", ["here", "here:port", ":8400"])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(PipelineError, match="not HOST:PORT"):
        open_source(f"asapo:{target}", beamtime="11", source="lambda")


def test_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASAPO_TOKEN", raising=False)
    with pytest.raises(PipelineError, match="environment variable ASAPO_TOKEN: a token, one word"):
        read_token(None)
    monkeypatch.setenv("ASAPO_TOKEN", SECRET)
    assert read_token(None) == SECRET
    path = tmp_path / "token"
    path.write_text("another\n")
    assert read_token(str(path)) == "another"
    path.write_text("two words")
    with pytest.raises(PipelineError, match=r"token_file: .*: a token, one word, is expected$"):
        read_token(str(path))


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASAPO_TOKEN", SECRET)
    monkeypatch.setitem(sys.modules, "asapo_consumer", None)
    source = open_source("asapo:here:8400", beamtime="11", source="lambda")
    with pytest.raises(PipelineError, match=r"pip install 'phasewatch\[asapo\]'"):
        source.start()


def test_the_real_package_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own consumer is made and asked; nobody listens at that port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server()  # of which only the clock is used
        connect = connector(address, "11", "lambda", SECRET, None)
        source = Stream(
            "asapo",
            AsapoFeed(address, connect, "s1", secret=SECRET, clock=server.clock, wait=server.wait),
            PixelDecoder("s1"),
            clock=server.clock,
        )
        with capture_logs() as logs, pytest.raises(PipelineError) as error:
            source.start()
    assert str(error.value).startswith(f"asapo:{address}: no answer for 60 s: ")
    assert logs[0]["event"] == "the server does not answer"
    assert SECRET not in str(logs) + str(error.value)
