"""The sink karabo-bridge, read by karabo_bridge's own client."""

from collections.abc import Callable, Iterator
from threading import Event as Flag
from threading import Thread
from typing import Any

import numpy as np
import pytest
import zmq
from karabo_bridge import Client
from structlog.testing import capture_logs

from phasewatch.pipeline.ambiguity import Ambiguity
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_sink
from phasewatch.plugins.sinks.bridge_outbox import Outbox
from phasewatch.plugins.sinks.karabo_bridge import KaraboBridge
from phasewatch.plugins.sources.trains import time_of

N_BINS, SOURCE = 12, "PHASEWATCH/RESULT:output"
AXIS = np.linspace(5.0, 25.0, N_BINS)
CLASSES = ("before", "during", "after")
RUN = RunStart(
    run_id="run7",
    source="x",
    items={"intensity": ItemSpec.of((N_BINS,), np.float32)},
    unit="2th_deg",
    classes=CLASSES,
    constants={"axis": AXIS},
)
LABELS = np.array([0, 0, 1, 0, 1, 1, 2, 2])


def results(first: int, n: int, *, timed: bool = True) -> Batch:
    rng = np.random.default_rng(first)
    seq = np.arange(first, first + n)
    return Batch(
        seq,
        seq + 10_000_000_000,
        seq * 1_000 + 1_600_000_000_050_000_007 if timed else None,
        {
            "intensity": rng.random((n, N_BINS), np.float32),
            "probability": rng.random((n, 3), np.float32),
            "label": LABELS[first : first + n].astype(np.int32),
            "novelty": rng.random(n, np.float32),
        },
    )


@pytest.fixture
def opened() -> Iterator[Callable[..., KaraboBridge]]:
    """Return a function that opens and starts a sink, which is closed after the test."""
    sinks: list[KaraboBridge] = []

    def start(kind: str, run: RunStart = RUN, **options: Any) -> KaraboBridge:
        sink = open_sink("karabo-bridge", address="tcp://127.0.0.1:*", socket=kind, **options)
        assert isinstance(sink, KaraboBridge)
        sink.start(run)
        sinks.append(sink)
        return sink

    yield start
    for sink in sinks:
        with sink._outbox._lock:
            sink._outbox._waiting.clear()  # nobody is there to take it
        sink.close()


def check(data: Any, meta: Any, expected: Batch, i: int, *, timed: bool = True) -> None:
    assert data.keys() == meta.keys() == {SOURCE}
    got, said = data[SOURCE], meta[SOURCE]
    arrays = expected.arrays
    np.testing.assert_array_equal(got["pattern"], arrays["intensity"][i], strict=True)
    np.testing.assert_array_equal(got["probability"], arrays["probability"][i], strict=True)
    np.testing.assert_array_equal(got["axis"], AXIS, strict=True)
    assert (got["unit"], got["seq"]) == ("2th_deg", int(expected.seq[i]))
    assert got["label"] == CLASSES[got["labelIndex"]] == CLASSES[arrays["label"][i]]
    assert got["novelty"] == arrays["novelty"][i]
    assert said["timestamp.tid"] == expected.ids[i]
    assert time_of(said) == (expected.t_acq[i] if timed else None)
    state = Ambiguity.of(3)
    for seq, label in enumerate(LABELS[: int(expected.seq[i]) + 1]):
        state = state.add(int(label), seq)
    assert got["confidence"] == state.confidence()
    assert got["zone"].tolist() == [[z.after, z.before] for z in state.zones()]


@pytest.mark.parametrize(("kind", "client"), [("REP", "REQ"), ("PUSH", "PULL")])
def test_client_has_every_result_to_the_last_bit(
    opened: Callable[..., KaraboBridge], kind: str, client: str
) -> None:
    sink = opened(kind)
    first, second = results(0, 5), results(5, 3)
    sink.batch(first)
    sink.failures([Failure(5, 5, "integrate", "x")])
    sink.dropped([(6, 6)], "ring full")
    sink.event(Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9))
    with Client(sink.address, sock=client, timeout=60) as reader:
        for i in range(5):
            check(*reader.next(), first, i)
        sink.batch(second)
        for i in range(3):
            check(*reader.next(), second, i)
    sink.stop(RunStop(run_id="run7", reason="end", loss=Loss()))


def test_subscriber_has_what_comes_after_it(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("PUB")
    with Client(sink.address, sock="SUB", timeout=60) as reader:
        there = Flag()

        def publish() -> None:
            while not there.is_set():
                sink.batch(results(0, 1))

        thread = Thread(target=publish)
        thread.start()
        data, meta = reader.next()
        there.set()
        thread.join()
        assert data[SOURCE]["seq"] == 0
        assert meta[SOURCE]["timestamp.tid"] == 10_000_000_000


def test_times_are_not_made_up(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("REP")
    sink.batch(results(0, 1, timed=False))
    with Client(sink.address, timeout=60) as reader:
        data, meta = reader.next()
        check(data, meta, results(0, 1), 0, timed=False)
        assert meta[SOURCE].keys() == {"source", "timestamp.tid"}


def test_patterns_without_classes(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("REP", RUN.evolve(classes=()), source="A/B/C:d")
    sink.batch(results(0, 2).with_arrays(drop=("probability", "label", "novelty")))
    with Client(sink.address, timeout=60) as reader:
        data, _ = reader.next()
    assert data["A/B/C:d"].keys() == {"pattern", "axis", "unit", "seq"}


@pytest.mark.parametrize("kind", ["REP", "PUSH", "PUB"])
def test_nobody_takes_and_the_run_goes_on(opened: Callable[..., KaraboBridge], kind: str) -> None:
    sink = opened(kind, queue=2)
    for _ in range(20):
        sink.batch(results(0, 8))
    if kind != "PUB":
        assert sink._outbox.dropped >= 20 * 8 - 2 - 1
    sink._outbox._clock = iter([0.0, 0.0, *[9.0] * 99]).__next__
    with capture_logs() as logs:
        sink.close()
        sink.close()
    assert kind == "PUB" or [log["event"] for log in logs] == ["results were not taken"]


def test_what_waits_is_the_newest(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("REP", queue=3)
    sink.batch(results(0, 8))
    with Client(sink.address, timeout=60) as reader:
        assert [reader.next()[0][SOURCE]["seq"] for _ in range(3)] == [5, 6, 7]


@pytest.fixture
def fed(opened: Callable[..., KaraboBridge]) -> Iterator[KaraboBridge]:
    """A sink that always has a result."""
    sink, enough = opened("REP"), Flag()

    def feed() -> None:
        while not enough.is_set():
            sink.batch(results(0, 1))

    thread = Thread(target=feed)
    thread.start()
    yield sink
    enough.set()
    thread.join()


def test_client_that_goes_away_does_not_wedge_it(fed: KaraboBridge) -> None:
    for look in (True, False, True, False):
        with zmq.Context() as context, context.socket(zmq.REQ) as gone:
            gone.linger = 60_000
            gone.connect(fed.address)
            gone.send(b"next")
            if look:  # it is answered, and does not take it
                assert gone.poll(60_000)
    with Client(fed.address, timeout=60) as reader:
        assert [reader.next()[0][SOURCE]["seq"] for _ in range(5)] == [0] * 5


def test_client_that_only_asks_does_not_keep_others_from_it(fed: KaraboBridge) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as greedy:
        greedy.linger = 0
        greedy.set_hwm(1)
        greedy.connect(fed.address)
        for _ in range(2000):
            if greedy.poll(100, zmq.POLLOUT):
                greedy.send_multipart([b"", b"next"])
        with Client(fed.address, timeout=60) as reader:
            assert [reader.next()[0][SOURCE]["seq"] for _ in range(5)] == [0] * 5


@pytest.mark.parametrize("request_", [[b"give"], [b""], [b"next", b"next"], [b"\x00" * 900]])
def test_request_that_is_none(opened: Callable[..., KaraboBridge], request_: list[bytes]) -> None:
    sink = opened("REP")
    sink.batch(results(0, 1))
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(sink.address)
        socket.send_multipart(request_)
        assert socket.recv_multipart() == [b"Error: bad request, not b'next'"]
    with Client(sink.address, timeout=60) as reader:
        check(*reader.next(), results(0, 1), 0)


def test_what_waits_at_the_end_is_still_taken(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("REP")
    sink._outbox._clock = lambda: 0.0  # the moment lasts
    with Client(sink.address, timeout=60) as reader:
        sink.batch(results(0, 3))
        thread = Thread(target=sink.close)
        thread.start()
        assert [reader.next()[0][SOURCE]["seq"] for _ in range(3)] == [0, 1, 2]
        thread.join()


def test_no_other_host_may_reach_it() -> None:
    with pytest.raises(PipelineError, match="sockets bind to loopback only"):
        open_sink("karabo-bridge", address="tcp://*:5555")
    with pytest.raises(PipelineError, match="key 'socket'"):
        open_sink("karabo-bridge", address="tcp://127.0.0.1:*", socket="REQ")


def test_address_in_use(opened: Callable[..., KaraboBridge]) -> None:
    sink = opened("REP")
    second = Outbox("REP", sink.address, 5)
    with pytest.raises(PipelineError, match="cannot bind"):
        second.open()
    second.close()
