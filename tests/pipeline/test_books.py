"""Loss table, gaps in ids, dispatching, batching, latency."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.dispatch import Dispatcher
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.latency import Histogram, Latency
from phasewatch.pipeline.ledger import Gaps, Ledger


def items(first: int, n: int) -> Batch:
    seq = np.arange(first, first + n)
    return Batch(seq=seq, ids=seq)


def failures(n: int) -> list[Failure]:
    return [Failure(i, i, "stage", f"item {i} is bad") for i in range(n)]


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.dictionaries(st.text(), st.integers(1, 9)),
    st.integers(0, 20),
    st.none() | st.integers(0, 300),
    st.booleans(),
)
def test_the_loss_table_adds_up(
    classified: int,
    failed: int,
    dropped: dict[str, int],
    missed: int,
    expected: int | None,
    whole: bool,
) -> None:
    ledger = Ledger()
    ledger.classify(classified)
    ledger.fail(failures(failed))
    for reason, n in dropped.items():
        ledger.drop(n, reason)
    received = classified + failed + sum(dropped.values())
    loss = ledger.loss(received=received, missed=missed, expected=expected, whole=whole)
    assert loss.received + loss.missed + loss.not_read == loss.expected
    assert loss.classified + loss.failed + sum(loss.dropped.values()) == loss.received
    with pytest.raises(PipelineError, match="loss table"):
        ledger.loss(received=received + 1, missed=0, expected=None, whole=True)


@pytest.mark.parametrize(
    ("received", "missed", "expected", "whole", "table"),
    [
        (48, 1, 50, True, (48, 2, 0, 50)),
        (48, 1, 50, False, (48, 1, 1, 50)),
        (48, 3, None, True, (48, 3, 0, 51)),
        (48, 0, 40, True, (48, 0, 0, 48)),
    ],
)
def test_what_was_expected_and_did_not_come(
    received: int, missed: int, expected: int | None, whole: bool, table: tuple[int, ...]
) -> None:
    ledger = Ledger()
    ledger.classify(received)
    loss = ledger.loss(received=received, missed=missed, expected=expected, whole=whole)
    assert (loss.received, loss.missed, loss.not_read, loss.expected) == table


def test_failures_are_told_by_kind() -> None:
    ledger = Ledger()
    ledger.fail([*failures(3), Failure(9, 9, "other", "bad")])
    assert [(k.stage, k.error, k.n, k.first_seq) for k in ledger.failures] == [
        ("stage", "item 0 is bad", 3, 0),
        ("other", "bad", 1, 9),
    ]
    ledger.fail([Failure(i, i, chr(i), "x") for i in range(300, 400)])
    assert len(ledger.failures) == 20
    assert ledger.failed == 104


@given(st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=12))
def test_gaps_in_ids_are_counted_as_a_set_would(batches: list[list[int]]) -> None:
    gaps, ids = Gaps(), [i for batch in batches for i in batch]
    for batch in batches:
        gaps.add(np.array(batch, np.int64))
    if not ids:
        assert gaps.missed == gaps.repeated == 0
        return
    counted = [i for i in ids if i >= ids[0]]
    seen, expected = set(counted), set(range(ids[0], max(ids) + 1))
    assert gaps.missed == len(expected - seen)
    assert gaps.repeated == len(ids) - len(seen)


def test_ids_at_the_ends_of_their_range_are_no_gap() -> None:
    gaps = Gaps()
    gaps.add(np.array([-(2**63), 2**63 - 1, 5, 7]))
    assert (gaps.missed, gaps.repeated) == (0, 2)


def test_old_gaps_are_forgotten_not_hoarded() -> None:
    gaps = Gaps(limit=2)
    gaps.add(np.array([0, 2, 4, 6]))
    gaps.add(np.array([1, 3]))
    assert (gaps.missed, gaps.repeated) == (2, 1)


@given(st.data())
def test_every_batch_goes_once_to_one_that_asked(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 20))
    limit = data.draw(st.integers(1, 4))
    dispatcher = Dispatcher(queue=3, in_flight=limit)
    asked, got, next_in, acknowledged = Counter[bytes](), [], 0, 0
    while len(got) < n:
        action = data.draw(st.sampled_from(["offer", "credit", "ack"]))
        if action == "offer" and next_in < n and not dispatcher.full:
            dispatcher.offer(items(2 * next_in, 2))
            next_in += 1
        elif action == "ack" and acknowledged < len(got):
            acknowledged += 1
            dispatcher.acknowledge(2 * acknowledged)
        elif not (next_in < n and dispatcher.queued == 0):
            dispatcher.credit(worker := data.draw(st.sampled_from([b"a", b"b"])), 1)
            asked[worker] += 1
            dispatcher.acknowledge(2 * len(got))
            acknowledged = len(got)
        while (order := dispatcher.next()) is not None:
            asked[order[0]] -= 1
            got.append(int(order[1].seq[0]))
            assert dispatcher.in_flight <= limit
        assert min(asked.values(), default=0) >= 0
    assert got == [2 * i for i in range(n)]


def test_overflow_takes_the_oldest() -> None:
    dispatcher = Dispatcher(queue=2, in_flight=9)
    for i in range(4):
        dispatcher.offer(items(i, 1))
    assert [int(b.seq[0]) for b in dispatcher.overflow()] == [0, 1]
    assert dispatcher.overflow() == []
    dispatcher.credit(b"a", 1)
    order = dispatcher.next()
    assert order is not None
    assert order[1].seq.tolist() == [2]


def test_a_batcher_is_due_by_size_or_by_age() -> None:
    batcher = Batcher(max_items=4, max_wait_ns=100)
    assert batcher.wait_ns(0) is None
    assert batcher.take() == []
    batcher.add(items(0, 1), 10)
    batcher.add(items(1, 2), 50)
    assert batcher.wait_ns(60) == 50
    assert batcher.wait_ns(110) == 0
    batcher.add(items(3, 3), 60)
    assert batcher.wait_ns(60) == 0
    assert [b.seq.tolist() for b in batcher.take()] == [[0, 1, 2, 3], [4, 5]]
    assert batcher.wait_ns(60) is None


@given(st.lists(st.integers(1_000, 10**12), min_size=1, max_size=200))
def test_quantiles_are_right_to_a_percent(durations: list[int]) -> None:
    histogram = Histogram()
    histogram.add(np.array(durations, np.int64))
    for q in (0.5, 0.9, 0.99):
        exact = np.quantile(durations, q, method="inverted_cdf") / 1e6
        assert exact * 0.999 <= histogram.quantile_ms(q) <= exact * 1.011
    assert histogram.summary()["max"] == round(max(durations) / 1e6, 3)


def test_latency_is_broken_down_by_step_and_survives_a_clock_that_jumps() -> None:
    latency = Latency()
    stamps = {"received": 0, "sent": 2_000_000, "reduced": 1_000_000, "tracked": 5_000_000}
    batch = items(0, 3)
    for hop, t in stamps.items():
        batch = batch.stamped(hop, t)
    latency.add(batch)
    summary = latency.summary()
    assert summary["p50"] == pytest.approx(5.0, rel=0.01)
    assert list(summary["per_stage"]) == ["queue", "reduce", "track"]
    assert summary["per_stage"]["reduce"]["p50"] < 0.002
    assert Latency().summary() == {}


def test_no_more_is_under_way_than_was_acknowledged() -> None:
    dispatcher = Dispatcher(queue=9, in_flight=2)
    for i in range(5):
        dispatcher.offer(items(2 * i, 2))
    dispatcher.credit(b"a", 5)
    assert dispatcher.next() and dispatcher.next()  # noqa: PT018
    assert dispatcher.next() is None
    dispatcher.acknowledge(1)
    assert dispatcher.next() is None
    dispatcher.acknowledge(2)
    assert dispatcher.next() is not None
    assert dispatcher.next() is None
