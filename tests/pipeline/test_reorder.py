"""The reorder window: in order, each once, bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.reorder import Reorder


def items(*seqs: int) -> Batch:
    seq = np.array(seqs, np.int64)
    return Batch(seq=seq, ids=seq * 10)


def drain(reorder: Reorder, now: int = 0) -> list[int]:
    batch, _ = reorder.release(now)
    return [] if batch is None else batch.seq.tolist()


@given(st.data())
def test_any_order_and_any_copies_come_out_in_order_once(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    fate = data.draw(st.lists(st.sampled_from(["come", "fail"]), min_size=n, max_size=n))
    order = data.draw(st.permutations(list(range(n)) * 2))
    reorder, out, failed = Reorder(window=100, max_age_ns=100), [], []
    for seq in order:
        if fate[seq] == "come":
            reorder.add(items(seq))
        else:
            failed += reorder.pass_over([seq], failed=True)
        out += drain(reorder)
    assert out == [s for s in range(n) if fate[s] == "come"]
    assert sorted(failed) == [s for s in range(n) if fate[s] == "fail"]
    assert len(reorder) == 0
    assert reorder.next_seq == n


@given(st.data())
def test_each_seq_ends_once_when_some_never_come(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    come = data.draw(st.sets(st.integers(0, n - 1)))
    window = data.draw(st.integers(1, 5))
    reorder, out, given_up = Reorder(window=window, max_age_ns=10**9), [], []
    for seq in data.draw(st.permutations(sorted(come))):
        reorder.add(items(seq))
        batch, lost = reorder.release(0)
        out += [] if batch is None else batch.seq.tolist()
        given_up += lost
        assert len(reorder) <= window
    batch, lost = reorder.finish(n)
    out += [] if batch is None else batch.seq.tolist()
    assert out == sorted(out)
    assert sorted(out + given_up + lost) == list(range(n))


def test_a_missing_item_is_waited_for_until_its_age() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(1, 2))
    assert reorder.release(50) == (None, [])
    assert reorder.release(150) == (None, [])
    batch, given_up = reorder.release(151)
    assert given_up == [0]
    assert batch is not None
    assert batch.seq.tolist() == [1, 2]
    reorder.add(items(0))
    assert reorder.release(152) == (None, [])
    assert reorder.ignored == 1


def test_progress_resets_the_wait() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(2))
    assert drain(reorder, 0) == []
    reorder.add(items(0))
    assert drain(reorder, 90) == [0]
    assert reorder.release(180) == (None, [])
    assert drain(reorder, 191) == [2]


def test_what_has_come_cannot_fail_any_more() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(1))
    assert reorder.pass_over([1, 0, 0], failed=True) == [0]
    assert reorder.pass_over([0], failed=True) == []
    assert reorder.end == 2
    assert drain(reorder) == [1]
    assert reorder.end == 2


def test_each_gap_is_waited_for_on_its_own() -> None:
    reorder = Reorder(max_age_ns=100)
    reorder.add(items(1))
    assert reorder.release(0) == (None, [])
    reorder.add(items(3))
    batch, given_up = reorder.release(101)
    assert given_up == [0]
    assert batch is not None
    assert batch.seq.tolist() == [1]
    assert reorder.release(201) == (None, [])
    assert reorder.release(202)[1] == [2]


def test_without_limits_nothing_is_given_up() -> None:
    reorder = Reorder()
    reorder.add(items(*range(1, 5000)))
    assert reorder.release(10**18) == (None, [])
    reorder.add(items(0))
    assert drain(reorder) == list(range(5000))


def test_failures_in_a_row_are_counted_in_order_of_seq() -> None:
    reorder = Reorder()
    reorder.pass_over([0, 1, 3, 4, 5, 7], failed=True)
    reorder.pass_over([6], failed=False)
    assert reorder.failed_in_a_row == 0
    reorder.release(0)
    reorder.add(items(2))
    reorder.release(0)
    assert reorder.failed_in_a_row == 4
