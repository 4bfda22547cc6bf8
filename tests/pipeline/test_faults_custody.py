"""Workers that do not take what they asked for, and clocks that jump, in what is pure."""

import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.custody import Custody, Order
from phasewatch.pipeline.latency import HOPS, Latency
from phasewatch.pipeline.processes import desk as desks
from phasewatch.pipeline.processes.desk import Desk
from phasewatch.pipeline.reorder import Reorder
from phasewatch.pipeline.restarts import Restarts
from phasewatch.pipeline.transport.links import Transport

HOUR = 3600 * 10**9


def orders(custody: Custody, now: int) -> list[Order]:
    found = []
    while (order := custody.next(now)) is not None:
        found.append(order)
    return found


def test_one_that_asks_and_never_takes_holds_up_nobody() -> None:
    custody = Custody(at_once=4)
    custody.take(0, range(64))
    custody.credit(b"never", 1024)
    assert {o.worker for o in orders(custody, 1)} == {b"never"}
    assert custody.overdue(2) == 64
    custody.credit(b"good", 2)
    for now in range(3, 19):  # one order of four at a time
        for order in orders(custody, now):
            assert order.worker == b"good"
            custody.credit(b"good", 1)
    assert custody.unsent == 0
    custody.acknowledge(64)
    assert custody.resent == 64


def test_one_that_was_late_works_again_as_soon_as_it_is_heard() -> None:
    custody = Custody(at_once=1)
    custody.take(0, range(3))
    custody.credit(b"slow", 3)
    assert len(orders(custody, 1)) == 3
    custody.overdue(2)
    custody.credit(b"slow", 1)
    assert [o.seq for o in orders(custody, 3)] == [0]


def test_one_that_was_heard_since_is_not_to_blame() -> None:
    """It did its work, which was lost further on: it has credits and will not ask again."""
    custody = Custody(at_once=1)
    custody.take(0, range(2))
    custody.credit(b"good", 1)
    custody.next(1)
    custody.credit(b"good", 2)
    custody.overdue(2)
    assert [o.worker for o in orders(custody, 3)] == [b"good", b"good"]


def test_where_all_are_late_it_is_tried_again() -> None:
    custody = Custody(at_once=1)
    custody.take(0, range(1))
    custody.credit(b"only", 5)
    for now in (1, 3, 5):
        assert [o.worker for o in orders(custody, now)] == [b"only"]
        custody.overdue(now + 1)


def test_custody_at_a_clock_that_jumps() -> None:
    custody = Custody(at_once=4)
    custody.take(0, range(4))
    custody.credit(b"a", 8)
    orders(custody, HOUR)
    assert custody.overdue(5 - HOUR) == 0  # back: it is waited for longer
    assert custody.overdue(9 * HOUR) == 4  # ahead: it is sent once more
    orders(custody, 9 * HOUR)
    assert custody.overdue(9 * HOUR) == 0
    assert custody.acknowledge(4) == [0, 1, 2, 3]


def one(seq: int, stamp: int = 0) -> Batch:
    i = np.array([seq])
    return Batch(i, i, None, {}, {"received": np.array([stamp])})


def test_order_and_batches_at_a_clock_that_jumps() -> None:
    reorder = Reorder(max_age_ns=HOUR)
    reorder.add(one(1))
    assert reorder.release(10 * HOUR) == (None, [])
    assert reorder.release(2 * HOUR) == (None, [])  # back: not given up
    reorder.add(one(0))
    batch, endings = reorder.release(-HOUR)
    assert batch is not None
    assert (batch.seq.tolist(), endings) == ([0, 1], [])
    batcher = Batcher(max_items=2, max_wait_ns=5)
    batcher.add(one(0), HOUR)
    assert batcher.wait_ns(0) == HOUR + 5
    batcher.add(one(1), 0)
    assert batcher.wait_ns(0) == 0  # full, whatever the time
    assert [len(b) for b in batcher.take()] == [2]


def test_latencies_at_a_clock_that_jumps() -> None:
    latency = Latency()
    i = np.zeros(1, np.int64)
    for tracked in (-HOUR, HOUR, 10**18):
        stamps = dict.fromkeys(HOPS, np.zeros(1, np.int64)) | {"tracked": np.array([tracked])}
        latency.add(Batch(i, i, None, {}, stamps))
    assert latency.summary()["max"] == 10**12
    assert latency.total.counts.sum() == 3
    assert latency.summary()["p50"] == pytest.approx(3600e3, rel=0.01)


def test_restarts_at_a_clock_that_jumps() -> None:
    restarts = Restarts(2)
    assert restarts.died("reducer-0", HOUR)
    assert restarts.due(HOUR) == ["reducer-0"]
    assert restarts.died("reducer-0", 0)
    assert not restarts.died("reducer-0", 1)
    assert restarts.due(HOUR) == ["reducer-0"]
    assert restarts.died("reducer-0", 3 * HOUR)


def test_health_at_a_clock_that_jumps() -> None:
    now = HOUR
    with Transport(linger_s=0) as transport:
        hub = transport.link("router", "inproc://hub", bind=True)
        desk = Desk(transport, "inproc://hub", "reducer-0", clock=lambda: now)
        times = [HOUR, HOUR + 1, 9 * HOUR, 9 * HOUR + desks.HEALTH_EVERY_NS]
        for now in times:
            desk.health(lambda at=now: {"at": at})
        said = []
        while transport.poll([hub], 0):
            received = hub.receive()
            assert received is not None
            body = received[1].body
            assert isinstance(body, ControlBody)
            said.append(body.data["at"])
    assert said == [HOUR, 9 * HOUR, 9 * HOUR + desks.HEALTH_EVERY_NS]
