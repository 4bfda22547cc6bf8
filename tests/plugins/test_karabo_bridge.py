"""The source karabo-bridge: against the real server, and against what no server would send."""

import itertools
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.ledger import Gaps
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.bridge_wire import decode
from phasewatch.plugins.sources.bridge_feed import BridgeFeed
from phasewatch.plugins.sources.karabo_bridge import Trains
from phasewatch.plugins.sources.stream import Stream

from .bridge import DETECTOR, SERVERS, fed, idle, image, numbers, serving, take
from .test_bridge_wire import VERSIONS, version_1_0, version_2_2, views

Opener = Callable[..., Stream]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Return a function that opens a source, which is closed after the test."""
    sources: list[Stream] = []

    def open_it(address: str, **options: Any) -> Stream:
        source = open_source(f"karabo-bridge:{address}", **options)
        assert isinstance(source, Stream)
        sources.append(source)
        return source

    yield open_it
    for source in sources:
        source.close()


@pytest.fixture
def push() -> Iterator["zmq.Socket[bytes]"]:
    """A socket to which one may give anything."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.bind("tcp://127.0.0.1:*")
        yield socket


def address(socket: "zmq.Socket[bytes]") -> str:
    return socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")


def assert_images(items: list[tuple[int, Any]], trains: range) -> None:
    assert numbers(items) == list(trains)
    for train, frame in items:
        np.testing.assert_array_equal(frame, image(train), strict=True)


@pytest.mark.parametrize("version", ["1.0", "2.2"])
@pytest.mark.parametrize("kind", ["REQ", "PULL"])
def test_every_train_of_a_real_server(opened: Opener, kind: str, version: str) -> None:
    trains = [fed(n) for n in range(100, 110)]
    with serving(trains, sock=SERVERS[kind], protocol_version=version) as server:
        source = opened(server.endpoint, type=kind, name=DETECTOR)
        run = source.start()
        assert run.items["frame"].shape == (4, 6)
        assert run.source == f"karabo-bridge:{server.endpoint}"
        assert run.expected is None
        assert_images(take(source, 10), range(100, 110))
        source.close()


@pytest.mark.parametrize("version", ["1.0", "2.2"])
def test_subscriber_of_a_real_server(opened: Opener, version: str) -> None:
    with serving(sock="PUB", protocol_version=version) as server:
        source = opened(server.endpoint, type="SUB", name=DETECTOR)
        source.connect()
        enough = Event()

        def feed() -> None:  # what is sent before the subscription is known is lost
            for train in itertools.count(100):
                if enough.is_set():
                    return
                server.feed(*fed(train))

        thread = Thread(target=feed)
        thread.start()
        try:
            source.start()
            items = take(source, 5)
        finally:
            enough.set()
            thread.join()
        ids = numbers(items)
        assert ids == sorted(set(ids))
        for train, frame in items:
            np.testing.assert_array_equal(frame, image(train))
        source.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_protocol(
    opened: Opener, push: "zmq.Socket[bytes]", version: Any
) -> None:
    source = opened(address(push), type="PULL", name=DETECTOR)
    source.connect()
    frac = {"timestamp.sec": "1600000000", "timestamp.frac": "500000000000000000"}
    for train in (5, 6, 8):
        push.send_multipart(version(*fed(train, **frac)))
    source.start()
    items = list(itertools.islice((i for i in source if i is not None), 3))
    assert [i.ids.tolist() for i in items if isinstance(i, Batch)] == [[5], [6], [8]]
    for item in items:
        assert isinstance(item, Batch)
        assert item.t_acq is not None
        assert item.t_acq.tolist() == [1600000000_500000000]
        np.testing.assert_array_equal(item.arrays["frame"][0], image(int(item.ids[0])))


def test_times_are_not_made_up(opened: Opener) -> None:
    with serving([fed(1), fed(2)]) as server:
        source = opened(server.endpoint, name=DETECTOR)
        source.start()
        assert next(item for item in source if item is not None).t_acq is None
        source.close()


@pytest.mark.parametrize("kind", ["REQ", "PULL"])
def test_server_that_is_started_again(opened: Opener, kind: str) -> None:
    with serving([fed(n) for n in range(3)], sock=SERVERS[kind]) as server:
        endpoint = server.endpoint
        source = opened(endpoint, type=kind, name=DETECTOR)
        source.start()
        items = iter(source)
        assert_images(take(items, 3), range(3))
    for first in (10, 20):  # twice: with a request under way each time
        with serving([fed(n) for n in range(first, first + 3)], endpoint, sock=SERVERS[kind]):
            assert_images(take(items, 3), range(first, first + 3))


def test_answer_that_came_before_the_connection_was_lost_is_taken() -> None:
    with serving([fed(n) for n in range(2)]) as server:
        feed = BridgeFeed(server.endpoint, "REQ")
        feed.open()
        while feed.receive(100) is None:
            pass
        assert feed._socket.poll(60_000)  # the second, which was asked for, is here
        while not feed._up:
            feed._look()
    while feed._up:
        feed._look()
    answer = feed.receive(0)
    assert answer is not None
    assert decode(answer)[DETECTOR].metadata["timestamp.tid"] == 1
    feed.close()


def test_server_that_comes_late(opened: Opener) -> None:
    with serving() as server:
        endpoint = server.endpoint
    source = opened(endpoint, name=DETECTOR)
    source.connect()
    assert source._feed.receive(1) is None
    with serving([fed(n) for n in range(3)], endpoint):
        source.start()
        assert_images(take(source, 3), range(3))
        source.close()


def test_server_that_is_gone_ends_the_run(opened: Opener) -> None:
    with serving([fed(n) for n in range(3)]) as server:
        source = opened(server.endpoint, name=DETECTOR)
        source.start()
        items = iter(source)
        first = take(items, 3)
    idle(source)
    with capture_logs() as logs:
        assert_images(first + take(items), range(3))
    assert [log["event"] for log in logs] == ["idle: the run is over"]


def test_nobody_answers(opened: Opener) -> None:
    with serving() as server:
        endpoint = server.endpoint
    source = opened(endpoint, name=DETECTOR)
    source.connect()
    idle(source)
    with pytest.raises(PipelineError, match=r"no run in 60.0 s; nothing came \(nobody answers\)$"):
        source.start()


@pytest.mark.parametrize("kind", ["REQ", "PULL", "SUB"])
def test_wrong_type_of_socket_is_said(opened: Opener, kind: str) -> None:
    server = {"REQ": "PUSH", "PULL": "PUB", "SUB": "REP"}[kind]
    with serving([fed(1)], sock=server) as there:
        source = opened(there.endpoint, type=kind, name=DETECTOR)
        source.connect()
        while "another type of socket" not in source._feed.state:
            assert source._feed.receive(5) is None
        idle(source)
        with pytest.raises(PipelineError, match=r"nothing came \(.*another type of socket\?\)$"):
            source.start()


PULSES, MODULES, ROWS, COLUMNS = 3, 2, 4, 5


def detector(train: int, pulses: int = PULSES) -> np.ndarray:
    return image(train, (pulses, MODULES, ROWS, COLUMNS))


@pytest.mark.parametrize(
    ("axes", "order"), [("pmyx", (0, 1, 2, 3)), ("mxyp", (1, 3, 2, 0)), ("pm0yx", None)]
)
def test_modules_and_pulses(opened: Opener, axes: str, order: tuple[int, ...] | None) -> None:
    def sent(train: int) -> np.ndarray:
        whole = detector(train)
        return whole[:, :, None] if order is None else whole.transpose(order)

    with serving([fed(n, sent(n)) for n in (10, 11)]) as server:
        source = opened(server.endpoint, name=DETECTOR, axes=axes)
        assert source.start().items["frame"].shape == (MODULES * ROWS, COLUMNS)
        items = take(source, 6)
        assert numbers(items) == [30, 31, 32, 33, 34, 35]
        expected = [f.reshape(-1, COLUMNS) for n in (10, 11) for f in detector(n)]
        np.testing.assert_array_equal([frame for _, frame in items], expected)
        source.close()


def feed(*trains: tuple[Any, Any], **options: Any) -> list[Any]:
    """Return what the decoder finds in `trains`, and what it refuses."""
    decoder = Trains(options.pop("name", DETECTOR), "image.data", options.pop("axes", None))
    found: list[Any] = []
    for data, metadata in trains:
        try:
            found += decoder(views(version_2_2(data, metadata)))
        except PipelineError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def test_trains_with_other_numbers_of_pulses() -> None:
    trains = [fed(n, detector(n, pulses)) for n, pulses in ((10, 3), (11, 2), (12, 5), (13, 3))]
    found = feed(*trains, axes="pmyx")[1:]
    ids = [f.id for f in found]
    assert ids == [30, 31, 32, 33, 34, 36, 37, 38, 38, 38, 39, 40, 41]
    gaps = Gaps()
    gaps.add(np.array(ids))
    assert (gaps.missed, gaps.repeated) == (1, 2)
    assert [f.error for f in found if hasattr(f, "error")] == [
        "train 12 has 5 pulses, the run began with 3"
    ] * 2


def test_train_of_one_pulse_without_that_axis() -> None:
    found = feed(fed(1, detector(1)), fed(2, detector(2)[0]), axes="pmyx")
    assert [f.id for f in found[1:]] == [3, 4, 5, 6]


def test_modules_that_are_sources_of_their_own() -> None:
    def sent(train: int, modules: tuple[int, ...]) -> tuple[Any, Any]:
        whole, data, metadata = detector(train), {}, {}
        for m in modules:
            d, md = fed(train, whole[:, m - 9], f"D/DET/{m}CH0:xtdf")
            data, metadata = data | d, metadata | md
        return data, metadata

    begin, *found = feed(
        sent(1, (10, 9)), sent(2, (9,)), sent(3, (9, 10)), name="D/DET/*CH0:xtdf", axes="pyx"
    )
    assert begin.frame.shape == (MODULES * ROWS, COLUMNS)
    assert [f.id for f in found] == list(range(3, 12))
    out = np.zeros((MODULES * ROWS, COLUMNS), np.uint16)
    found[7].write(out)
    np.testing.assert_array_equal(out, detector(3)[1].reshape(-1, COLUMNS))
    assert {f.error for f in found[3:6]} == {"train 2: modules are missing: D/DET/10CH0:xtdf"}


def test_ambiguous_shape_says_what_to_set() -> None:
    [error] = feed(fed(1, detector(1)))
    assert 'set axes = "pmyx" or "mxyp"' in error
    [_, *frames] = feed(fed(1, image(1)[None]), fed(2, image(2)))
    assert [f.id for f in frames] == [1, 2]


def test_train_in_which_the_detector_has_nothing_is_a_gap() -> None:
    other = fed(2, source="ANOTHER")
    without = fed(3, key="image.other")
    empty = fed(4, np.empty((0, 4, 6), np.uint16))
    found = feed(fed(1, image(1)[None]), other, without, empty, fed(5), axes="pyx")
    assert [getattr(f, "id", f) for f in found[1:]] == [1, 5]


def test_image_that_cannot_be_had_is_a_failure_and_the_next_is_taken() -> None:
    strings = np.array([["a", "b"]])
    found = feed(
        fed(1), fed(2, strings), fed(3, image(3)[0]), fed(4, 5), fed(5, image(5, (3, 6))), fed(6)
    )
    assert [f.id for f in found[1:]] == [1, 2, 3, 4, 5, 6]
    assert ["not one of numbers" in getattr(found[2], "error", ""), found[3].error] == [
        True,
        "image.data has shape (6,): not an image",
    ]
    assert found[4].error == '[source] key: "image.data" is not an image'
    assert found[5].frame.shape == (3, 6)  # which is a Failure of this run


def test_name_that_does_not_exist_lists_those_that_do(opened: Opener) -> None:
    trains = [fed(n, source=f"S{n % 3}") for n in range(12)]
    with serving(trains) as server:
        source = opened(server.endpoint, name="NOT/THERE")
        with pytest.raises(PipelineError) as error:
            source.start()
    assert '[source] name: no source "NOT/THERE"; S0, S1, S2' in str(error.value)


def test_key_that_does_not_exist_lists_the_images() -> None:
    *refused, error = feed(*[fed(n, key="data.pixels") for n in range(10)])
    assert len(refused) == 9
    assert error.startswith("PipelineError: in none of 10 trains an image: ")
    assert error.endswith(f'source {DETECTOR} has no "image.data"; images: data.pixels')


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5.0, '"image.data" is not an image'),
        ([1, 2], '"image.data" is not an image'),
        (np.arange(5), r"shape (5,): not an image"),
        (np.array([["x", "y"]]), "is not one of numbers"),
        (np.ones((2, 3), bool), "is not one of numbers"),
        (np.ones((2, 3), np.float16), "frame of dtype"),
        (np.ones((0, 3)), "frame of shape (0, 3)"),
        (np.ones((1, 2, 3, 4, 5, 6)), "set axes"),
    ],
)
def test_key_that_is_no_image(value: Any, said: str) -> None:
    [error] = feed(fed(1, value))
    assert said in error


@pytest.mark.parametrize("first", [np.ones((2, 3), np.float16), np.ones((0, 3)), 5.0])
def test_run_begins_with_the_first_good_train(first: Any) -> None:
    error, began, taken = feed(fed(1, first), fed(2))
    assert isinstance(error, str)
    assert (began.frame.shape, taken.id) == ((4, 6), 2)


def test_axis_of_which_nothing_can_be_taken() -> None:
    error, *_ = feed(fed(1, np.ones((3, 0, 4, 6), np.uint16)), axes="p0yx")
    assert "shape (3, 0, 4, 6): an axis of which one entry is taken has none" in error


def test_keys_that_are_bytes_are_listed() -> None:
    _, metadata = fed(1)
    message = version_1_0({DETECTOR: {b"k": image(1)}}, metadata)
    with pytest.raises(PipelineError, match=r"has no \"image.data\"; images: b'k'"):
        list(Trains(DETECTOR, "image.data", None)(views(message)))


def test_name_may_be_left_out_where_one_source_has_images() -> None:
    data, metadata = fed(1)
    other, more = fed(1, 5.0, "Z/MOTOR/1")
    began, _ = feed((data | other, metadata | more), name=None)
    assert began.settings["bridge"]["sources"] == [DETECTOR]
    second, third = fed(1, source="B")
    [error] = feed((data | second, metadata | third), name=None)
    assert f'[source] name: key "image.data" has images in B, {DETECTOR}' in error
    [error] = feed((other, more), name=None)
    assert "has images in none of Z/MOTOR/1" in error


def hostile() -> dict[str, list[bytes]]:
    good = version_2_2(*fed(7))
    head = msgpack.unpackb(good[2])
    return {
        "empty": [b""],
        "random": [np.random.default_rng(1).bytes(300)],
        "pickle": [b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."],
        "bad request": [b"Error: bad request"],
        "odd": list(map(bytes, good[:-1])),
        "many parts": [b"x"] * 500,
        "no train id": version_2_2(fed(7)[0], {DETECTOR: {}}),
        "train id is a text": version_2_2(*fed("7", image(7))),
        "train id of 70 bits": version_1_0(fed(7)[0], {DETECTOR: {"timestamp.tid": (1 << 64) - 1}}),
        "nothing of terabytes": [
            *good[:2],
            msgpack.packb({**head, "shape": [0, 1 << 39, 1 << 39]}),
            b"",
        ],
        "terabytes": [*good[:2], msgpack.packb({**head, "shape": [1 << 20, 1 << 20]}), good[3]],
        "pulses": version_2_2(*fed(7, np.zeros((5000, 1, 1), np.uint16))),
    }


@pytest.mark.parametrize("kind", sorted(hostile()))
def test_later_good_data_still_come(opened: Opener, push: "zmq.Socket[bytes]", kind: str) -> None:
    bad = [bytes(part) for part in hostile()[kind]]
    source = opened(address(push), type="PULL", name=DETECTOR)
    source.connect()
    for parts in (bad, version_2_2(*fed(1)), bad, bad, version_2_2(*fed(2))):
        push.send_multipart(parts)
    source.start()
    items = take(source, 4 if kind == "pulses" or "terabytes" in kind else 2)
    assert [n for n, frame in items if not isinstance(frame, str)] == [1, 2]
    assert source.refused.total() + sum(isinstance(f, str) for _, f in items) == 3


def test_resumed_source_keeps_detector_and_numbers(opened: Opener) -> None:
    with serving([fed(n, detector(n)) for n in (10, 11)]) as server:
        source = opened(server.endpoint, axes="pmyx", name=DETECTOR)
        run = source.start()
        source.close()
    with serving([fed(n, detector(n, 2)) for n in (12, 13)]) as server:
        source = opened(server.endpoint, axes="pmyx", name=DETECTOR)
        source.resume(run, 6)
        items = list(itertools.islice((i for i in source if i is not None), 4))
        assert not any(isinstance(item, Failure) for item in items)
        assert [i.ids.tolist() for i in items] == [[36], [37], [39], [40]]
        assert [i.seq.tolist() for i in items] == [[6], [7], [8], [9]]
        source.close()


def test_frames_are_written_into_lent_memory(opened: Opener) -> None:
    memory, given = np.full((64, 8, 5), 999, np.uint16), [0]

    def allocate(n: int) -> dict[str, np.ndarray]:
        first, given[0] = given[0], given[0] + n
        return {"frame": memory[first : given[0]]}

    with serving([fed(n, detector(n)) for n in (10, 11)]) as server:
        source = opened(server.endpoint, axes="pmyx", name=DETECTOR)
        source.start()
        source.lend(allocate)
        items = list(itertools.islice((i for i in source if i is not None), 2))
        assert all(np.shares_memory(i.arrays["frame"], memory) for i in items)
        np.testing.assert_array_equal(memory[:3], detector(10).reshape(3, 8, 5))
        source.close()


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("127.0.0.1:5", {}, "not tcp://HOST:PORT"),
        ("tcp://nowhere", {"name": "x"}, "cannot connect tcp://nowhere"),
        ("tcp://127.0.0.1:5", {"type": "REP"}, "key 'type'"),
        ("tcp://127.0.0.1:5", {"axes": "pp"}, "one letter for each axis"),
        ("tcp://127.0.0.1:5", {"idle_timeout_s": 0.0}, "key 'idle_timeout_s'"),
        ("tcp://127.0.0.1:5", {"source": "x"}, "unknown key 'source'"),
    ],
)
def test_what_the_user_got_wrong(target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        open_source(f"karabo-bridge:{target}", **options).start()
