"""The reorder window: in order, each once, bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.reorder import Reorder


def items(*seqs: int) -> Batch:
    seq = np.array(seqs, np.int64)
    return Batch(seq=seq, ids=seq * 10)


def fail(*seqs: int) -> list[Failure]:
    return [Failure(seq, seq, "stage", "bad") for seq in seqs]


def drain(reorder: Reorder, now: int = 0) -> tuple[list[int], list[int]]:
    """Return the seqs of all items and of all other endings that are in order by now."""
    out: list[int] = []
    ended: list[int] = []
    while True:
        batch, endings = reorder.release(now)
        if batch is None and not endings:
            return out, ended
        out += [] if batch is None else batch.seq.tolist()
        ended += [e.seq for e in endings]


@given(st.data())
def test_any_order_and_any_copies_come_out_in_order_once(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    fate = data.draw(st.lists(st.sampled_from(["come", "fail", "drop"]), min_size=n, max_size=n))
    order = data.draw(st.permutations(list(range(n)) * 2))
    reorder, out, ended = Reorder(window=100, max_age_ns=100), [], []
    while order:
        size = data.draw(st.integers(1, 4))
        part, order = order[:size], order[size:]
        reorder.add(items(*(s for s in part if fate[s] == "come")))
        reorder.end_items(fail(*(s for s in part if fate[s] == "fail")))
        reorder.end_items(Dropped(s, s, "late") for s in part if fate[s] == "drop")
        some, others = drain(reorder)
        out, ended = out + some, ended + others
    assert out == [s for s in range(n) if fate[s] == "come"]
    assert ended == [s for s in range(n) if fate[s] != "come"]
    assert len(reorder) == 0
    assert reorder.next_seq == n
    assert reorder.ignored == len(out)


@given(st.data())
def test_each_seq_ends_once_when_some_never_come(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    come = data.draw(st.sets(st.integers(0, n - 1)))
    window = data.draw(st.integers(1, 5))
    reorder, out, ended = Reorder(window=window, max_age_ns=10**9), [], []
    for seq in data.draw(st.permutations(sorted(come))):
        reorder.add(items(seq))
        some, others = drain(reorder)
        out, ended = out + some, ended + others
        assert len(reorder) <= window
    reorder.give_up(n, "over")
    some, others = drain(reorder)
    assert out + some == sorted(out + some)
    assert sorted(out + some + ended + others) == list(range(n))


def test_an_item_keeps_its_own_columns_whatever_it_came_with() -> None:
    reorder = Reorder()
    reorder.add(items(4, 2, 7, 3))
    reorder.add(items(0, 2, 1, 5, 6))
    batch, _ = reorder.release(0)
    assert batch is not None
    assert batch.seq.tolist() == list(range(8))
    assert batch.ids.tolist() == [10 * i for i in range(8)]


def test_one_that_goes_on_takes_nothing_twice() -> None:
    reorder = Reorder()
    reorder.add(items(3, 4, 5, 6))
    reorder.end_items(fail(2, 7))
    reorder.skip(5)
    reorder.add(items(4, 8))
    assert drain(reorder) == ([5, 6, 8], [7])
    assert reorder.next_seq == 9


def test_a_missing_item_is_waited_for_until_its_age() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(1, 2))
    assert drain(reorder, 50) == ([], [])
    assert drain(reorder, 150) == ([], [])
    assert drain(reorder, 151) == ([1, 2], [0])
    reorder.add(items(0))
    assert drain(reorder, 152) == ([], [])
    assert reorder.ignored == 1


def test_progress_resets_the_wait() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(2))
    assert drain(reorder, 0) == ([], [])
    reorder.add(items(0))
    assert drain(reorder, 90) == ([0], [])
    assert drain(reorder, 180) == ([], [])
    assert drain(reorder, 191) == ([2], [1])


def test_what_has_come_cannot_fail_any_more() -> None:
    reorder = Reorder(window=10, max_age_ns=100)
    reorder.add(items(1))
    reorder.end_items(fail(1, 0, 0))
    assert reorder.end == 2
    assert drain(reorder) == ([1], [0])
    reorder.end_items(fail(0))
    assert drain(reorder) == ([], [])
    assert reorder.end == 2


def test_each_gap_is_waited_for_on_its_own() -> None:
    reorder = Reorder(max_age_ns=100)
    reorder.add(items(1))
    assert drain(reorder, 0) == ([], [])
    reorder.add(items(3))
    assert drain(reorder, 101) == ([1], [0])
    assert drain(reorder, 201) == ([], [])
    assert drain(reorder, 202) == ([3], [2])


def test_without_limits_nothing_is_given_up() -> None:
    reorder = Reorder()
    reorder.add(items(*range(1, 5000)))
    assert drain(reorder, 10**18) == ([], [])
    reorder.add(items(0))
    assert drain(reorder) == (list(range(5000)), [])


def test_one_release_is_bounded() -> None:
    reorder = Reorder()
    reorder.end_items(fail(*range(2500)))
    assert [len(reorder.release(0)[1]) for _ in range(4)] == [1000, 1000, 500, 0]


def test_failures_in_a_row_are_counted_in_order_of_seq() -> None:
    reorder = Reorder()
    reorder.end_items(fail(0, 1, 3, 4, 5, 7))
    reorder.end_items([Dropped(6, 6, "late")])
    assert reorder.longest_row == 0
    drain(reorder)
    reorder.add(items(2))
    drain(reorder)
    assert (reorder.longest_row, reorder.row) == (4, 4)
