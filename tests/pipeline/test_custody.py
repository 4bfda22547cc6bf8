"""The receiver's custody, as a machine that is driven at random and by hand."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.pipeline.batch import Dropped, Failure
from phasewatch.pipeline.custody import Custody, Order


def orders(custody: Custody, now: int = 0) -> list[Order]:
    out = []
    while (order := custody.next(now)) is not None:
        out.append(order)
    return out


# True chance, as hypothesis takes 25 times as long for its own draws as the custody for its steps.
@settings(max_examples=300)
@given(chance=st.randoms(use_true_random=True))
def test_every_item_is_sent_to_one_that_asked_until_it_is_acknowledged(chance: Random) -> None:
    """Whatever is lost on the way, in the end each item has been sent after its last loss."""
    n, ring = chance.randint(1, 40), chance.randint(1, 12)
    custody = Custody(at_once=chance.randint(1, 5))
    asked, slots, free = Counter[bytes](), dict[int, int](), set(range(ring))
    taken = done = now = 0
    there: set[int] = set()  # items that have come to the end of the chain
    flying: dict[int, Order] = {}
    for _ in range(400):
        now += 1
        action = chance.choice(["take", "ask", "arrive", "lose", "all", "late", "ack"])
        if action == "take" and free and taken < n:
            slots[taken] = slot = min(free)
            free.remove(slot)
            custody.take(taken, range(slot, slot + 1))
            taken += 1
        elif action == "ask":
            worker = chance.choice([b"a", b"b", b"c"])
            asked[worker] += 1
            custody.credit(worker, 1)
        elif action == "arrive" and flying:
            order = flying.pop(chance.choice(sorted(flying)))
            there |= set(range(order.seq, order.seq + order.n))
        elif action == "lose":
            worker = chance.choice([b"a", b"b", b"c"])
            custody.lost(worker)
            asked[worker] = 0
            flying = {s: o for s, o in flying.items() if o.worker != worker}
        elif action == "all":
            custody.all_lost()
            flying = {}
        elif action == "late":
            custody.overdue(now - chance.randint(0, 20))
        elif action == "ack":
            while done in there:
                done += 1
            freed = custody.acknowledge(done)
            assert sorted(freed) == sorted(slots.pop(s) for s in [s for s in slots if s < done])
            free |= set(freed)
        for order in orders(custody, now):
            asked[order.worker] -= 1
            assert asked[order.worker] >= 0
            assert [slots[s] for s in range(order.seq, order.seq + order.n)] == list(
                range(order.slot, order.slot + order.n)
            )
            flying[order.seq] = order
    while done < n:
        if taken < n and free:
            slots[taken] = slot = free.pop()
            custody.take(taken, range(slot, slot + 1))
            taken += 1
        custody.all_lost()
        custody.credit(b"z", 50)
        for order in orders(custody, now):
            there |= set(range(order.seq, order.seq + order.n))
        while done in there:
            done += 1
        for seq in [s for s in slots if s < done]:
            free.add(slots.pop(seq))
        custody.acknowledge(done)
    assert custody.held == custody.unsent == 0


def test_what_lies_side_by_side_goes_together_and_idle_workers_share() -> None:
    custody = Custody(at_once=4)
    custody.take(0, range(6, 12))
    custody.take(6, range(0, 3))
    custody.credit(b"a", 2)
    assert orders(custody) == [Order(b"a", 0, 6, 4), Order(b"a", 4, 10, 2)]
    custody.credit(b"a", 1)
    custody.credit(b"b", 1)
    assert orders(custody) == [Order(b"a", 6, 0, 2), Order(b"b", 8, 2, 1)]


def test_only_what_has_not_ended_goes_again() -> None:
    custody = Custody(at_once=4)
    custody.take(0, range(4))
    custody.credit(b"a", 1)
    assert len(orders(custody, now=5)) == 1
    assert custody.acknowledge(2) == [0, 1]
    assert custody.overdue(5) == 0
    assert custody.overdue(6) == 2
    custody.credit(b"b", 1)
    assert orders(custody, now=6) == [Order(b"b", 2, 2, 2)]
    assert custody.resent == 2


def test_orders_that_are_not_full_go_at_the_pace() -> None:
    custody = Custody(at_once=4, pace_ns=10)
    assert custody.wait_ns(0) is None
    custody.credit(b"a", 9)
    custody.take(0, range(1))
    assert [order.n for order in orders(custody, now=100)] == [1]
    custody.take(1, range(1, 3))
    assert custody.wait_ns(103) == 7
    assert orders(custody, now=109) == []
    assert [order.n for order in orders(custody, now=110)] == [2]
    custody.take(3, range(3, 8))
    assert custody.wait_ns(111) == 0
    assert [order.n for order in orders(custody, now=111)] == [4]
    assert custody.wait_ns(111) == 10


def test_the_oldest_unsent_is_dropped() -> None:
    custody = Custody(at_once=1)
    custody.take(0, range(3))
    custody.credit(b"a", 1)
    orders(custody)
    assert custody.drop_oldest() == (1, 1)
    assert custody.drop_oldest() == (2, 2)
    assert custody.drop_oldest() is None
    assert custody.held == 1


def test_endings_are_kept_until_somebody_knows() -> None:
    custody = Custody(at_once=1)
    late, bad = Dropped(3, 3, "ring full"), Failure(1, 1, "source", "unreadable")
    custody.end(late)
    custody.end(bad)
    assert custody.endings == [bad, late]
    custody.acknowledge(2)
    assert custody.endings == [late]


def test_who_asks_afresh_has_asked_for_that_much_in_all() -> None:
    custody = Custody(at_once=1)
    custody.credit(b"a", 5)
    custody.credit(b"a", 2, afresh=True)
    custody.take(0, range(9))
    assert [order.seq for order in orders(custody)] == [0, 1]


def test_what_is_kept_goes_again_whoever_dies_until_something_new_ends() -> None:
    custody = Custody(at_once=4, keep=4)
    custody.take(0, range(12))
    custody.credit(b"a", 3)
    assert [order.seq for order in orders(custody)] == [0, 4, 8]
    assert custody.acknowledge(8) == [0, 1, 2, 3]
    assert (custody.first, custody.held, custody.flying) == (4, 4, 4)
    assert custody.all_lost() == 8
    custody.credit(b"a", 2)
    assert [order.seq for order in orders(custody, now=5)] == [4, 8]
    assert custody.acknowledge(8) == []  # no news
    assert custody.lost(b"a") == 8
    custody.credit(b"b", 2)
    assert [order.seq for order in orders(custody, now=5)] == [4, 8]
    assert custody.overdue(9) == 8
    custody.credit(b"b", 2)
    assert [order.seq for order in orders(custody, now=9)] == [4, 8]
    assert custody.acknowledge(9) == [4]  # so who looks back has seen all of them
    assert custody.lost(b"b") == 4
    assert custody.acknowledge(12) == [5, 6, 7]
    assert custody.drop_oldest() is None
