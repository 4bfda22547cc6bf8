"""The reader between a source and a small ring: nothing waits for what waits for it."""

import threading

import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.custody import Custody
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.processes.intake import Intake
from phasewatch.pipeline.processes.reader import Reader
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.ring import Ring, new_memory
from phasewatch.plugins.sources.frames import Allocate, read_frames

N = 200
SPEC = ItemSpec.of((4, 4), "u2")
RUN = RunStart(run_id="r", source="s", items={"frame": SPEC}, expected=N)


class Frames:
    """Frames of which some cannot be read; `own`: every third batch lies in memory of its own."""

    def __init__(self, bad_every: int, *, own: bool) -> None:
        self._bad_every, self._own = bad_every, own

    def lend(self, allocate: Allocate) -> None:
        self._allocate = allocate

    def __iter__(self):
        def read(first: int, out: np.ndarray) -> None:
            if any(k % self._bad_every == 0 for k in range(first + 1, first + len(out) + 1)):
                raise PipelineError("bad")
            out[...] = first

        batches = read_frames(range(N), np.arange(N), SPEC, read, allocate=self._allocate)
        for i, item in enumerate(batches):
            if self._own and i % 3 == 0 and isinstance(item, Batch):
                copy = {name: array.copy() for name, array in item.arrays.items()}
                item = Batch(item.seq, item.ids, None, copy)
            yield item

    def close(self) -> None:
        pass


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("slots", "bad_every"), [(2, 3), (4, 7), (5, 7), (8, 11), (8, 13)])
def test_a_small_ring_and_frames_that_cannot_be_read(slots: int, bad_every: int, own: bool) -> None:
    fd = new_memory()
    ring = Ring.create(fd, RUN.items, slots=slots, note=b"")
    custody, endings = Custody(at_once=8), list[Failure]()
    intake = Intake(RUN, ring, custody, endings.extend, live=False)  # type: ignore[arg-type]
    with Transport(linger_s=0) as transport:
        source = Frames(bad_every, own=own)
        reader = Reader(source, transport.wakeup(), ring, limit=4, wait=True)  # type: ignore[arg-type]
        reader.start()
        while not (reader.drained and intake.idle):
            transport.poll([reader.wakeup], timeout_ms=20)
            reader.wakeup.clear()
            intake.acknowledge(intake.received - (0 if intake.idle else len(intake._pending)))
            intake.place()
            while intake.idle and (item := reader.take()) is not None:
                intake.add(item, 1)
        reader.join(timeout_s=10)
    assert reader.error is None
    assert intake.received == N
    assert len(endings) == N // bad_every


class Singles:
    """Items that it has given once `third` is set: the third is the last that is asked for."""

    def __init__(self) -> None:
        self.third = threading.Event()

    def __iter__(self):
        for i in range(N):
            if i == 2:
                self.third.set()
            seq = np.array([i])
            yield Batch(seq, seq, None, {"frame": np.zeros((1, 4, 4), "u2")})


def test_what_the_reader_holds_when_it_is_stopped_is_of_this_run() -> None:
    ring = Ring.create(new_memory(), RUN.items, slots=4, note=b"")
    source = Singles()
    with Transport(linger_s=0) as transport:
        reader = Reader(source, transport.wakeup(), ring, limit=2, wait=True)  # type: ignore[arg-type]
        reader.start()
        assert source.third.wait(60)
        reader.stop()
        reader.join(timeout_s=10)
        taken = []
        while not reader.drained:
            item = reader.take()
            assert isinstance(item, Batch)
            taken += item.seq.tolist()
    assert taken == [0, 1, 2]
