"""The zmq source and sink: runs in, runs out, and what hostile peers send in between."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import AckBody, DroppedBody, EventBody, FailedBody, StopBody
from phasewatch.pipeline.documents import Event, ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import decode, encode, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.plugin import open_sink, open_source
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.links import Transport
from phasewatch.plugins.sinks.zmq import Publisher
from phasewatch.plugins.sources.zmq import ZmqSource

AXIS = np.linspace(1.0, 2.0, 12)
LOSS = Loss(received=3, classified=3)


def patterns_start(run_id: str = "run7", **changes: object) -> RunStart:
    return RunStart(
        run_id=run_id,
        source="peer",
        items={"intensity": ItemSpec.of((12,), np.float32)},
        unit="q_A^-1",
        expected=3,
        constants={"axis": AXIS},
    ).evolve(**changes)


def frames_start() -> RunStart:
    return RunStart(
        run_id="run7",
        source="peer",
        items={"frame": ItemSpec.of((5, 6), np.uint16)},
        saturation=4095.0,
        constants={"mask": np.eye(5, 6, dtype=bool)},
    )


def patterns(first: int, n: int, value: float = 1.0, **changes: object) -> Batch:
    seq = np.arange(first, first + n, dtype=np.int64)
    columns = {"arrays": {"intensity": np.full((n, 12), value, np.float32)}} | changes
    return Batch(seq, seq + 500, **columns)


def stop(run_id: str = "run7") -> list[bytes]:
    return encode(StopBody(stop=RunStop(run_id=run_id, reason="end", loss=LOSS)))


class Peer:
    """A PUSH socket connected to the source, closed by the fixture."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.socket = socket

    def send(self, *messages: list[bytes]) -> None:
        for parts in messages:
            self.socket.send_multipart(parts)


@pytest.fixture
def linked() -> Iterator[Callable[..., tuple[ZmqSource, Peer]]]:
    """Return a function that gives a bound PULL source and a peer that pushes to it."""
    context = zmq.Context()
    sources: list[ZmqSource] = []
    peers: list[Peer] = []

    def make(address: str = "tcp://127.0.0.1:*", **options: object) -> tuple[ZmqSource, Peer]:
        source = open_source(f"zmq:{address}", bind=True, **options)
        assert isinstance(source, ZmqSource)
        source.connect()
        sources.append(source)
        socket = context.socket(zmq.PUSH)
        socket.connect(source.address)
        peers.append(Peer(socket))
        return source, peers[-1]

    yield make
    for source in sources:
        source.close()
    context.destroy(linger=0)


def read(source: ZmqSource) -> list[Batch | Failure]:
    items = [item for item in source if item is not None]
    seqs: list[int] = []
    for item in items:
        seqs += item.seq.tolist() if isinstance(item, Batch) else [item.seq]
    assert seqs == list(range(len(seqs)))
    return items


def ids_of(items: list[Batch | Failure]) -> list[int]:
    return [n for i in items if isinstance(i, Batch) for n in i.ids.tolist()]


def test_patterns_come_through(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    source, peer = linked()
    stamped = patterns(0, 2, 3.0).stamped("peer", 1)
    peer.send(encode_start(patterns_start()), encode_batch("run7", stamped))
    peer.send(encode_batch("run7", patterns(2, 1)), stop())
    start = source.start()
    assert (start.run_id, start.unit, start.expected) == ("run7", "q_A^-1", 3)
    assert start.source == f"zmq:{source.address} of peer"
    np.testing.assert_array_equal(start.constants["axis"], AXIS)
    first, second = read(source)
    assert isinstance(first, Batch)
    assert ids_of([first, second]) == [500, 501, 502]
    np.testing.assert_array_equal(first.arrays["intensity"], np.full((2, 12), 3.0))
    assert first.arrays["intensity"].flags.aligned
    assert first.stamps == {}
    assert first.t_acq is None
    assert not source.refused


def test_frames_over_ipc(linked: Callable[..., tuple[ZmqSource, Peer]], tmp_path: Path) -> None:
    source, peer = linked(f"ipc://{tmp_path}/frames")
    frames = np.arange(90, dtype=np.uint16).reshape(3, 5, 6)
    seq = np.arange(3, dtype=np.int64)
    batch = Batch(seq, seq, seq + 10**18, {"frame": frames})
    peer.send(encode_start(frames_start()), encode_batch("run7", batch), stop())
    start = source.start()
    assert start.saturation == 4095.0
    np.testing.assert_array_equal(start.constants["mask"], np.eye(5, 6, dtype=bool))
    [got] = read(source)
    assert isinstance(got, Batch)
    np.testing.assert_array_equal(got.arrays["frame"], frames)
    assert got.t_acq is not None
    assert got.t_acq.tolist() == [10**18, 10**18 + 1, 10**18 + 2]


def hostile() -> dict[str, list[bytes]]:
    good = encode_batch("run7", patterns(0, 2))
    header = msgpack.unpackb(good[0])
    huge = {**header, "arrays": [["seq", "<i8", [1 << 28]], *header["arrays"][1:]]}
    return {
        "empty": [b""],
        "random": [np.random.default_rng(1).bytes(300)],
        "random parts": [np.random.default_rng(n).bytes(40) for n in range(5)],
        "pickle": [b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."],
        "version": [msgpack.packb({**header, "v": 1}), *good[1:]],
        "no version": [msgpack.packb({"body": header["body"]})],
        "unknown field": [msgpack.packb({**header, "x": 1}), *good[1:]],
        "two gigabytes": [msgpack.packb(huge), *good[1:]],
        "truncated": good[:-1],
        "short part": [*good[:-1], bytes(good[-1])[:-1]],
        "an object dtype": [msgpack.packb(header).replace(b"<f4", b"|O8"), *good[1:]],
        "many parts": [b"x"] * 500,
    }


@pytest.mark.parametrize("kind", sorted(hostile()))
def test_later_good_data_still_come(
    linked: Callable[..., tuple[ZmqSource, Peer]], kind: str
) -> None:
    bad = hostile()[kind]
    source, peer = linked()
    peer.send(bad, encode_start(patterns_start()), bad)
    peer.send(encode_batch("run7", patterns(0, 2)), bad, bad, stop())
    source.start()
    assert ids_of(read(source)) == [500, 501]


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (patterns(5, 2, arrays={"intensity": np.ones((2, 12))}), "float64 (12,) came, float32"),
        (patterns(5, 2, arrays={"intensity": np.ones((2, 11), np.float32)}), "float32 (11,) came"),
        (patterns(5, 2, arrays={"intensity": np.ones((2, 1, 12), np.float32)}), "(1, 12) came"),
        (patterns(5, 2, arrays={}), "a batch without 'intensity'"),
        (patterns(5, 2, t_acq=np.zeros(2, np.int64)), "some batches have it, some have not"),
    ],
)
def test_bad_batch_that_names_its_items_is_failures(
    linked: Callable[..., tuple[ZmqSource, Peer]], batch: Batch, text: str
) -> None:
    source, peer = linked()
    peer.send(encode_start(patterns_start()), encode_batch("run7", patterns(0, 2)))
    peer.send(encode_batch("run7", batch), encode_batch("run7", patterns(7, 1)), stop())
    source.start()
    items = read(source)
    assert ids_of(items) == [500, 501, 507]
    bad = [i for i in items if isinstance(i, Failure)]
    assert [(f.id, f.stage) for f in bad] == [(505, "source"), (506, "source")]
    assert all(text in f.error for f in bad)
    assert source.refused == {"bad batch": 1}


def test_what_is_not_of_this_run_is_ignored(
    linked: Callable[..., tuple[ZmqSource, Peer]],
) -> None:
    source, peer = linked()
    event = Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9)
    peer.send(
        encode_batch("run7", patterns(0, 1)),  # before any start
        stop(),
        encode_start(patterns_start()),
        encode_start(patterns_start("other")),
        encode_batch("other", patterns(0, 1)),
        *encode_failed("other", [Failure(0, 0, "integrate", "x")]),
        stop("other"),
        encode(AckBody(run_id="run7", seq=3)),
        encode(EventBody(run_id="run7", event=event)),
        encode_start(patterns_start()),
        encode_batch("run7", patterns(4, 0)),
        encode_batch("run7", patterns(4, 1)),
        stop(),
    )
    source.start()
    assert ids_of(read(source)) == [504]
    assert source.refused == {
        "no start": 2,
        "unexpected start": 1,
        "another run": 2,
        "unexpected stop": 1,
        "unexpected ack": 1,
    }


def test_failed_and_dropped_items_of_the_peer(
    linked: Callable[..., tuple[ZmqSource, Peer]],
) -> None:
    source, peer = linked()
    peer.send(
        encode_start(patterns_start()),
        *encode_failed("run7", [Failure(3, 503, "integrate", "no light")]),
        encode_batch("run7", patterns(0, 1)),
        encode(DroppedBody(run_id="run7", items=((9, 509),), reason="ring full")),
        encode(FailedBody(run_id="run7", items=((0, 1 << 63, "x", "y"),))),
        encode(FailedBody(run_id="run7", items=((0, 0, "", ""),) * 20_001)),
        stop(),
    )
    source.start()
    items = read(source)
    assert ids_of(items) == [500]
    assert [(i.id, i.error) for i in items if isinstance(i, Failure)] == [
        (503, "integrate: no light"),
        (509, "dropped: ring full"),
    ]
    assert source.refused == {"bad failures": 2}


@pytest.mark.parametrize(
    "run",
    [
        patterns_start(items={"probability": ItemSpec.of((3,), np.float32)}),
        patterns_start(items={"intensity": ItemSpec.of((3, 4), np.float32)}),
        patterns_start(items={"intensity": ItemSpec(shape=(12,), dtype="O")}),
        patterns_start(items={"intensity": ItemSpec(shape=(0,), dtype="<f4")}),
        patterns_start(constants={}),
        patterns_start(unit=None),
        patterns_start(constants={"axis": AXIS[:-1]}),
        patterns_start(constants={"axis": AXIS[::-1].copy()}),
        patterns_start(constants={"axis": AXIS * np.nan}),
        patterns_start(constants={"axis": AXIS.astype(np.float32)}),
        frames_start().evolve(constants={"mask": np.zeros((5, 5), bool)}),
        frames_start().evolve(
            items={"frame": ItemSpec(shape=(10**6, 10**6), dtype="<u2")}, constants={}
        ),
        patterns_start(settings={"baseline": 5}),
        patterns_start(settings={"baseline": {"lam": 1e5}}),
        patterns_start(settings={"normalise": ["minmax"]}),
        patterns_start(expected=2**63 - 1),
    ],
)
def test_unusable_start_is_waited_out(
    linked: Callable[..., tuple[ZmqSource, Peer]], run: RunStart
) -> None:
    source, peer = linked()
    peer.send(encode_start(run), encode_start(patterns_start("good")), stop("good"))
    assert source.start().run_id == "good"
    assert read(source) == []
    assert source.refused == {"no start": 1}


def test_other_arrays_are_left_out(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    source, peer = linked()
    run = patterns_start(
        items={
            "intensity": ItemSpec.of((12,), np.float32),
            "label": ItemSpec.of((), np.int32),
        },
        classes=("a", "b"),
        settings={"normalise": "minmax", "other": b"anything"},
    )
    batch = patterns(0, 1).with_arrays(label=np.zeros(1, np.int32))
    peer.send(encode_start(run), encode_batch("run7", batch), stop())
    start = source.start()
    assert (list(start.items), start.classes) == (["intensity"], ())
    assert start.settings == {"normalise": "minmax"}
    [got] = read(source)
    assert isinstance(got, Batch)
    assert list(got.arrays) == ["intensity"]


def test_closing_line_counts_what_was_refused(
    linked: Callable[..., tuple[ZmqSource, Peer]],
) -> None:
    source, peer = linked()
    peer.send(stop("other"), [b""], encode_start(patterns_start()), [b"x"] * 3, stop())
    source.start()
    with capture_logs() as logs:
        assert read(source) == []
        source.close()
    [line] = [entry for entry in logs if entry["event"] == "messages refused"]
    assert (line["rejected"], line["no start"], line["address"]) == (2, 1, source.address)
    assert "header" in line["last_error"]


def test_nothing_refused_is_not_worth_a_line(
    linked: Callable[..., tuple[ZmqSource, Peer]],
) -> None:
    source, peer = linked()
    peer.send(encode_start(patterns_start()), stop())
    with capture_logs() as logs:
        source.start()
        read(source)
    assert logs == []


class Clock:
    """Advances by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_idle_run_ends(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    bound = ZmqSource("tcp://127.0.0.1:*", "pull", True, 2.0, clock=Clock())
    bound.connect()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(bound.address)
        socket.send_multipart(encode_start(patterns_start()))
        socket.send_multipart(encode_batch("run7", patterns(0, 1)))
        bound.start()
        items = list(bound)
    assert None in items  # a run can be stopped while nothing comes
    assert ids_of([i for i in items if i is not None]) == [500]


def test_no_start_in_time() -> None:
    source = ZmqSource("tcp://127.0.0.1:*", "pull", True, 1.5, clock=Clock())
    with pytest.raises(
        PipelineError,
        match=r"^zmq:tcp://127.0.0.1:\d+: no start of a run in 1.5 s; nothing came$",
    ):
        source.start()


@pytest.mark.parametrize(
    ("messages", "last"),
    [
        ([encode_batch("run7", patterns(0, 1)), [b""]], "header is not msgpack"),
        ([[b""], encode_batch("run7", patterns(0, 1))], "no start: message of type 'batch'"),
    ],
)
def test_no_start_among_what_came(messages: list[list[bytes]], last: str) -> None:
    def clock() -> float:
        return 100.0 if came() == 40 else 0.0

    def came() -> int:
        return source.refused.total() + source._link.rejected

    source = ZmqSource("tcp://127.0.0.1:*", "pull", True, 1.5, clock=clock)
    source.connect()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.connect(source.address)
        for parts in 20 * messages:
            socket.send_multipart(parts)
        with pytest.raises(PipelineError, match=f"in 1.5 s; 40 refused, last: {last}"):
            source.start()


def test_garbage_does_not_put_off_the_end() -> None:
    """What is no message of ours does not keep a run waiting."""
    source = ZmqSource("tcp://127.0.0.1:*", "pull", True, 10.0, clock=Clock())
    source.connect()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.connect(source.address)
        socket.send_multipart(encode_start(patterns_start()))
        source.start()
        for item in source:
            assert item is None
            socket.send_multipart([b"garbage"])
    assert source._transport is None


def test_says_that_it_waits(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    source, peer = linked()
    now = iter(range(1000))

    def clock() -> float:
        if (t := next(now)) == 7:
            peer.send(encode_start(patterns_start()))
        return float(t)

    source._clock = clock
    with capture_logs() as logs:
        source.start()
    said = {
        "event": "waiting for the start of a run",
        "address": source.address,
        "log_level": "info",
    }
    assert logs == [said]


@pytest.mark.parametrize("address", ["tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555"])
def test_public_bind_is_refused(address: str) -> None:
    with pytest.raises(PipelineError, match="loopback"):
        open_source(f"zmq:{address}", bind=True)
    with pytest.raises(PipelineError, match="loopback"):
        open_sink("zmq", address=address)


def test_address_that_is_none() -> None:
    source = open_source("zmq:nonsense://x")
    with pytest.raises(PipelineError, match="nonsense://x"):
        source.start()


def test_address_in_use(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    source, _ = linked()
    sink = open_sink("zmq", address=source.address)
    with pytest.raises(PipelineError, match=r"cannot bind tcp://127.0.0.1:\d+"):
        sink.start(patterns_start())
    sink.close()


@pytest.fixture
def subscriber() -> Iterator["zmq.Socket[bytes]"]:
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.subscribe(b"")
    yield socket
    context.destroy(linger=0)


def test_published_run(subscriber: "zmq.Socket[bytes]") -> None:
    sink = open_sink("zmq", address="tcp://127.0.0.1:*", every=2)
    sink.start(patterns_start())
    subscriber.connect(sink.address)
    while not subscriber.poll(5):  # until the subscription has arrived
        sink.event(Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9))
    for n in range(4):
        sink.batch(patterns(n, 1))
    sink.failures([Failure(9, 509, "integrate", "no light")])
    sink.stop(RunStop(run_id="run7", reason="end", loss=LOSS))
    kinds = []
    while not kinds or kinds[-1] != "stop":
        message = decode(subscriber.recv_multipart())
        if message.body.type != "event":
            kinds.append(message.body.type)
    assert kinds == [
        *("start", "batch", "batch", "start", "batch", "batch", "start", "failed", "stop"),
    ]
    sink.close()
    sink.close()


def test_source_joins_a_published_run_late() -> None:
    sink = open_sink("zmq", address="tcp://127.0.0.1:*", every=1000)
    sink.start(patterns_start())
    source = ZmqSource(sink.address, "sub", False, None)
    source.connect()
    n = 0
    while not source._transport.poll([source._link], 5):
        sink.batch(patterns(n, 1))
        n += 1
    for m in range(n, n + 7):
        sink.batch(patterns(m, 1))
    sink.stop(RunStop(run_id="run7", reason="end", loss=LOSS))
    assert source.start().run_id == "run7"
    ids = ids_of(read(source))
    assert len(ids) >= 7  # the start came when it did
    assert ids == list(range(500 + n + 7 - len(ids), 500 + n + 7))
    sink.close()


def test_consumer_that_never_reads_does_not_block(subscriber: "zmq.Socket[bytes]") -> None:
    subscriber.setsockopt(zmq.RCVHWM, 1)
    sink = open_sink("zmq", address="tcp://127.0.0.1:*")
    sink.start(patterns_start())
    subscriber.connect(sink.address)
    while not subscriber.poll(5):
        sink.batch(patterns(0, 1))
    large = patterns(0, 1, arrays={"intensity": np.zeros((1, 1 << 18), np.float32)})
    for _ in range(200):  # 200 MiB, more than the sockets hold
        sink.batch(large)
    sink.stop(RunStop(run_id="run7", reason="end", loss=LOSS))
    sink.close()


def test_source_that_was_there_first_has_the_whole_run(tmp_path: Path) -> None:
    """Its socket connects again some time after the bind; the run waits for it."""
    address = f"ipc://{tmp_path}/run"
    source = open_source(f"zmq:{address}", socket="sub")
    assert isinstance(source, ZmqSource)
    source.connect()
    sink = open_sink("zmq", address=address, wait_for=1)
    sink.start(patterns_start())
    sink.batch(patterns(0, 2))
    sink.batch(patterns(2, 1))
    sink.stop(RunStop(run_id="run7", reason="end", loss=LOSS))
    assert source.start().run_id == "run7"
    assert ids_of(read(source)) == [500, 501, 502]
    assert not source.refused
    sink.close()


def test_run_goes_on_without_subscribers() -> None:
    sink = Publisher("tcp://127.0.0.1:*", 50, 2, 1.5, clock=Clock())
    with capture_logs() as logs:
        sink.start(patterns_start())
    [line] = logs
    assert line["event"] == "subscribers are missing: the run goes on without"
    assert (line["waited_for"], line["came"], line["address"]) == (2, 0, sink.address)
    sink.batch(patterns(0, 1))
    sink.close()


def test_every_newcomer_gets_a_start(subscriber: "zmq.Socket[bytes]") -> None:
    sink = open_sink("zmq", address="tcp://127.0.0.1:*", every=1000)
    sink.start(patterns_start())
    with zmq.Context() as context, context.socket(zmq.SUB) as second:
        second.subscribe(b"")
        for socket in (subscriber, second):
            socket.connect(sink.address)
            while not socket.poll(5):
                sink.batch(patterns(0, 1))
            assert decode(socket.recv_multipart()).body.type == "start"
    sink.close()


def test_resumed_puller_needs_no_start(linked: Callable[..., tuple[ZmqSource, Peer]]) -> None:
    source, peer = linked()
    peer.send(encode_batch("run7", patterns(5, 2)), encode_batch("other", patterns(0, 1)))
    peer.send(encode_start(patterns_start()), encode_batch("run7", patterns(7, 1)), stop())
    source.resume(patterns_start(), 5)
    items = [item for item in source if item is not None]
    assert [i.seq.tolist() for i in items if isinstance(i, Batch)] == [[5, 6], [7]]
    assert ids_of(items) == [505, 506, 507]
    assert source.refused == {"another run": 1}


def test_resumed_puller_that_missed_the_stop(
    linked: Callable[..., tuple[ZmqSource, Peer]],
) -> None:
    source, peer = linked()
    unusable = patterns_start("bad", unit=None)
    peer.send(encode_start(unusable), encode_batch("run7", patterns(5, 1)))
    peer.send(encode_start(patterns_start("other")), encode_batch("run7", patterns(6, 1)))
    source.resume(patterns_start(), 5)
    with capture_logs() as logs:
        assert ids_of([item for item in source if item is not None]) == [505]
    assert source._transport is None
    [line] = [entry for entry in logs if entry["event"].startswith("another run began")]
    assert (line["other"], line["log_level"]) == ("other", "warning")


def published(run_id: str, *, resumed: bool) -> tuple[list[int], str]:
    """Return what a subscriber of run7 has, and what it says, where `run_id` is published next."""
    sink = open_sink("zmq", address="tcp://127.0.0.1:*", every=1)
    sink.start(patterns_start())
    source = ZmqSource(sink.address, "sub", False, None)
    if resumed:
        source.resume(patterns_start(), 3)
    source.connect()
    while not source._transport.poll([source._link], 5):
        sink.event(Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9))
    sink.batch(patterns(3, 1))
    sink._run = patterns_start(run_id)  # as a publisher that was started again at this address
    sink._link.send(encode_start(sink._run))
    sink.batch(patterns(4, 1))
    sink._link.send(stop())
    if not resumed:
        source.start()
    with capture_logs() as logs:
        ids = ids_of([item for item in source if item is not None])
    source.close()
    sink.close()
    return ids, " ".join(entry["event"] for entry in logs)


@pytest.mark.parametrize("resumed", [False, True])
def test_subscriber_ends_at_the_start_of_another_run(resumed: bool) -> None:
    assert published("run7", resumed=resumed) == ([503, 504], "")
    assert published("run8", resumed=resumed) == ([503], "another run began: this one is over")


def test_keys_open_a_run_to_other_hosts(tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    write_keys(tmp_path / "keys")
    sink = open_sink("zmq", address="tcp://0.0.0.0:*", keys=keys)
    assert isinstance(sink, Publisher)
    sink.start(patterns_start())
    at = "tcp://127.0.0.1:" + sink.address.rpartition(":")[2]
    source = open_source(f"zmq:{at}", socket="sub", keys=keys)
    assert isinstance(source, ZmqSource)
    source.connect()
    while not source._transport.poll([source._link], 5):
        sink.event(Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9))
    sink.batch(patterns(0, 2))
    sink.stop(RunStop(run_id="run7", reason="end", loss=LOSS))
    assert source.start().run_id == "run7"
    assert ids_of(read(source)) == [500, 501]
    sink.close()


def test_source_with_keys_may_bind_to_all(tmp_path: Path) -> None:
    keys = str(tmp_path / "keys")
    write_keys(tmp_path / "keys")
    source = open_source("zmq:tcp://0.0.0.0:*", bind=True, keys=keys)
    assert isinstance(source, ZmqSource)
    source.connect()
    at = "tcp://127.0.0.1:" + source.address.rpartition(":")[2]
    with Transport(keys=Keys.load(tmp_path / "keys")) as known:
        link = known.link("push", at, bind=False)
        for parts in (encode_start(patterns_start()), encode_batch("run7", patterns(0, 1)), stop()):
            link.send(parts)
        source.start()
        assert ids_of(read(source)) == [500]


def test_folder_without_keys(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    with pytest.raises(PipelineError, match="none: no such folder"):
        open_source("zmq:tcp://0.0.0.0:5555", bind=True, keys=nowhere)
    with pytest.raises(PipelineError, match="none: no such folder"):
        open_sink("zmq", address="tcp://0.0.0.0:5555", keys=nowhere)
