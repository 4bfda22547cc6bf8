"""Stages in a row, in one process."""

from collections.abc import Sequence

import numpy as np

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.stage import Remembering, Stage, isolate

SEVERAL = 8


class Chain:
    """A row of stages that is itself a stage; for notebooks, tests and inside each process."""

    name = "chain"

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)

    def start(self, run: RunStart) -> RunStart:
        """Start all stages; return what comes out of the last."""
        for stage in self.stages:
            run = stage.start(run)
        return run

    def warm_up(self, run: RunStart) -> None:
        """Compile and allocate what the first items of `run` would otherwise wait for.

        One alone and several together are compiled apart (`calibration.sums`).
        """
        for n in (1, SEVERAL):
            arrays = {
                name: np.resize(np.arange(7), (n, *spec.shape)).astype(spec.dtype)
                for name, spec in run.items.items()
            }
            seq = np.arange(n)
            self.process_isolated(Batch(seq=seq, ids=seq, arrays=arrays))  # made up: may well fail
            for stage in self.stages:
                if isinstance(stage, Remembering):
                    stage.forget()

    def process(self, batch: Batch) -> Batch:
        """Return `batch` after the last stage; raises at the first bad item."""
        for stage in self.stages:
            batch = stage.process(batch)
        return batch

    def process_isolated(self, batch: Batch) -> tuple[Batch | None, list[Failure]]:
        """Return what comes through, and a `Failure` for each item that does not."""
        failures: list[Failure] = []
        remaining: Batch | None = batch
        for stage in self.stages:
            if remaining is None:
                break
            remaining, bad = isolate(stage.name, stage.process, remaining)
            failures += bad
        return remaining, failures
