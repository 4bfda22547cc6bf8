"""What a receiver that is started again finds in the ring, wherever the earlier one was killed."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.custody import Custody
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.processes.intake import DIED, Intake, resume_at
from phasewatch.pipeline.transport.ring import Ring, new_memory

RUN = RunStart(run_id="r", source="a:b", items={"intensity": ItemSpec.of((2,), "f4")})


@pytest.fixture
def memory() -> Iterator[int]:
    fd = new_memory()
    yield fd
    os.close(fd)


def items(*ids: int) -> Batch:
    i = np.array(ids)
    return Batch(i, i, None, {"intensity": np.full((len(i), 2), 0.5, np.float32)})


def receiver(ring: Ring) -> tuple[Intake, Custody, list[Failure | Dropped]]:
    told: list[Failure | Dropped] = []
    custody = Custody(at_once=8)
    return Intake(RUN, ring, custody, told.extend, live=False), custody, told


def test_what_found_no_room_comes_again_from_a_source_that_can(memory: int) -> None:
    ring = Ring.create(memory, RUN.items, slots=4, note=b"")
    first, _, _ = receiver(ring)
    first.add(items(10, 11, 14), 1)
    first.add(items(15, 16, 17), 2)
    assert (first.received, first.idle) == (6, False)
    assert resume_at(Ring.attach(memory, writable=True)) == 4
    again, custody, told = receiver(Ring.attach(memory, writable=True))
    again.recover()
    assert (again.received, custody.held, told) == (4, 4, [])
    again.acknowledge(4)
    again.add(items(16, 17), 3)
    assert (again.received, again.gaps.missed) == (6, 2)


def test_what_found_no_room_has_failed_where_it_cannot_come_again(memory: int) -> None:
    ring = Ring.create(memory, RUN.items, slots=4, note=b"")
    first, _, _ = receiver(ring)
    first.add(items(10, 11, 12, 13, 14), 1)
    again, _, told = receiver(Ring.attach(memory, writable=True))
    again.recover()
    assert again.received == 5
    assert told == [Failure(4, -1, "receiver", DIED)]


def test_killed_between_the_items_and_the_tally(memory: int) -> None:
    """The last batch is in the ring, but nobody has written down that it was received."""
    ring = Ring.create(memory, RUN.items, slots=8, note=b"")
    first, _, _ = receiver(ring)
    first.add(items(10, 11), 1)
    tally = {name: ring.tally(name) for name in ("received", "missed", "last_id")}
    first.add(items(12, 15), 2)
    ring.note_tally(**tally)
    assert resume_at(Ring.attach(memory, writable=True)) == 4
    again, custody, told = receiver(Ring.attach(memory, writable=True))
    again.recover()
    assert (again.received, again.gaps.missed, again.gaps.last, told) == (4, 2, 15, [])
    custody.credit(b"w", 1)
    order = custody.next(9)
    assert order is not None
    batch = again.fetch(order)
    assert batch.seq.tolist() == [0, 1, 2, 3]
    assert batch.stamps["received"].tolist() == [1, 1, 2, 2]


def test_all_was_acknowledged(memory: int) -> None:
    ring = Ring.create(memory, RUN.items, slots=4, note=b"")
    first, _, _ = receiver(ring)
    first.add(items(1, 2), 1)
    first.acknowledge(2)
    assert resume_at(Ring.attach(memory, writable=True)) == 2
