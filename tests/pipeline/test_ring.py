"""Shared memory: what one process writes another reads, and what survives its writer."""

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.transport.ring import Ring, default_slots, new_memory

ITEMS = {"frame": ItemSpec.of((3, 5), "u2"), "monitor": ItemSpec.of((), "f8")}


@pytest.fixture
def fd() -> Iterator[int]:
    fd = new_memory()
    yield fd
    os.close(fd)


def fill(ring: Ring, slots: range, first: int) -> None:
    part = slice(slots.start, slots.stop)
    seq = np.arange(first, first + len(slots))
    ring.arrays["frame"][part] = seq[:, None, None]
    ring.arrays["monitor"][part] = seq / 2
    ring.commit(slots, first, seq + 100, seq * 7)


def test_what_is_written_is_read_in_another_mapping(fd: int) -> None:
    assert not Ring.laid_out(fd)
    ring = Ring.create(fd, ITEMS, slots=6, note=b"who comes after")
    reader = Ring.attach(fd)
    slots = ring.acquire(4)
    assert slots == range(4)
    fill(ring, slots, 10)
    assert reader.arrays["frame"][2].tolist() == [[12] * 5] * 3
    assert reader.arrays["monitor"].tolist()[:4] == [5.0, 5.5, 6.0, 6.5]
    assert reader.generation.tolist() == [1, 1, 1, 1, 0, 0]
    assert reader.note == b"who comes after"
    with pytest.raises(ValueError, match="read-only"):
        reader.arrays["frame"][0] = 1


def test_one_that_comes_after_finds_what_is_held(fd: int) -> None:
    ring = Ring.create(fd, ITEMS, slots=4, note=b"")
    fill(ring, ring.acquire(3), 0)
    ring.release([1])
    ring.note_tally(received=3, last_id=102)
    lent = ring.acquire(1)
    assert lent == range(3, 4)
    after = Ring.attach(fd, writable=True)
    assert after.held.tolist() == [1, 0, 1, 0]
    assert (after.tally("received"), after.tally("last_id")) == (3, 102)
    assert {after.acquire(1).start, after.acquire(1).start} == {1, 3}
    assert not after.acquire(1)


@given(st.lists(st.one_of(st.integers(1, 5), st.just(0)), max_size=60))
def test_slots_follow_one_another_and_none_is_given_twice(actions: list[int]) -> None:
    fd = new_memory()
    try:
        ring = Ring.create(fd, ITEMS, slots=7, note=b"")
        out: list[int] = []
        for n in actions:
            if n == 0 and out:
                ring.release([out.pop(0)])
            elif n:
                slots = ring.acquire(n)
                assert len(slots) <= n
                assert bool(slots) == (len(out) < 7)
                assert not set(slots) & set(out)
                out += slots
    finally:
        os.close(fd)


def test_views_are_known_by_their_slots(fd: int) -> None:
    ring = Ring.create(fd, ITEMS, slots=4, note=b"")
    views = {name: array[1:3] for name, array in ring.arrays.items()}
    assert ring.slots_of(views) == range(1, 3)
    assert ring.slots_of({**views, "monitor": ring.arrays["monitor"][2:4]}) is None
    assert ring.slots_of({**views, "frame": views["frame"].copy()}) is None
    assert ring.slots_of({"other": views["frame"]}) is None
    assert ring.slots_of({"frame": ring.arrays["frame"][0][None, :, ::-1]}) is None


def test_who_waits_for_room_gets_it_or_gives_up(fd: int) -> None:
    ring = Ring.create(fd, ITEMS, slots=2, note=b"")
    assert ring.wait(2, go_on=lambda: True) == range(2)
    assert not ring.wait(1, go_on=lambda: False)
    got: list[range] = []
    waiting = threading.Thread(target=lambda: got.append(ring.wait(1, go_on=lambda: True)))
    waiting.start()
    ring.release([1])
    waiting.join()
    assert got == [range(1, 2)]


def test_too_much_memory_and_foreign_memory_are_one_line(fd: int) -> None:
    huge = {"frame": ItemSpec.of((1 << 20, 1 << 20), "u2")}
    with pytest.raises(PipelineError, match=r"\[runtime\] ring: 65536 items are \d+ MiB"):
        Ring.create(fd, huge, slots=65536, note=b"")
    os.ftruncate(fd, 8192)
    with pytest.raises(PipelineError, match="not a ring of this version"):
        Ring.attach(fd)


def test_how_many_items_fit() -> None:
    assert default_slots({"frame": ItemSpec.of((1556, 1556), "u2")}) == 110
    assert default_slots({"intensity": ItemSpec.of((4023,), "f4")}) == 1024
    assert default_slots({"frame": ItemSpec.of((8000, 8000), "u4")}) == 16
