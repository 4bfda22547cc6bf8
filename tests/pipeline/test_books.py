"""Loss table, gaps in ids, dispatching, batching, latency."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.batcher import Batcher
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.latency import Histogram, Latency
from phasewatch.pipeline.ledger import Gaps, Ledger
from phasewatch.pipeline.memory import Memory, dump, load
from phasewatch.pipeline.restarts import Restarts
from phasewatch.pipeline.tracker import Prediction, Rules, initial, step


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


def test_another_goes_on_counting_gaps() -> None:
    gaps = Gaps()
    gaps.add(np.array([3, 5]))
    after = Gaps(missed=gaps.missed, last=gaps.last)
    after.add(np.array([6, 9]))
    assert (after.missed, after.last) == (3, 9)


def test_a_tracker_s_memory_is_the_same_to_the_last_bit() -> None:
    ledger = Ledger()
    ledger.classify(7)
    ledger.fail([*failures(3), Failure(9, 9, "other", "bad")])
    ledger.drop(2, "ring full")
    rules = Rules(n_classes=3)
    fold = initial(rules)
    rng = np.random.default_rng(1)
    for seq in range(20):
        p = rng.dirichlet([1, 1, 1]).astype(np.float32)
        fold, _ = step(rules, fold, Prediction(seq, seq, None, p, rng.uniform(0, 2)))
    back = load(dump(Memory(ledger, 3, 5, fold, 2)))
    assert back.fold == fold
    assert (back.row, back.longest_row, back.resets) == (3, 5, 2)
    assert back.ledger.failures == ledger.failures
    assert back.ledger.ended == ledger.ended == 13
    back.ledger.fail(failures(1))
    assert [k.n for k in back.ledger.failures] == [4, 1]
    assert load(dump(Memory(Ledger()))).fold is None


def test_who_died_is_started_again_later_each_time_and_not_for_ever() -> None:
    restarts, second = Restarts(3), 10**9
    assert restarts.died("a", 0)
    assert restarts.due(0) == ["a"]
    assert restarts.due(0) == []
    assert restarts.died("a", 0)
    assert restarts.due(second // 10 - 1) == []
    assert restarts.due(second // 10) == ["a"]
    assert restarts.died("b", 0)
    assert restarts.died("a", 0)
    assert restarts.due(second // 5) == ["b", "a"]
    assert not restarts.died("a", second)
    assert restarts.died("a", 61 * second)
    assert restarts.due(61 * second) == ["a"]
    assert not Restarts(0).died("a", 0)
