"""``simulate:EXPERIMENT``: a run of the digital twin, made frame by frame as it is read."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.detector import SATURATION
from phasewatch.bench.twin.run import Run, open_run
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.frames import Allocate, own_memory, read_frames
from phasewatch.plugins.sources.items import check_same

PATTERNS_PER_BATCH = 16


def open_source(
    target: str,
    *,
    seed: int = 0,
    frames: int | None = None,
    layout: str = "lambda2m",
    kind: Literal["frames", "patterns"] = "frames",
) -> "SimulatedSource":
    """Open run `seed` of the experiment `target`; `kind` says what its items are.

    Raises
    ------
    PipelineError
        No such experiment, layout or kind.
    """
    if kind not in ("frames", "patterns"):
        raise PipelineError(f"[source] kind = {kind!r}: there are frames and patterns")
    return SimulatedSource(open_run(target, seed=seed, frames=frames, layout=layout), kind=kind)


class SimulatedSource:
    """The frames or patterns of one simulated run; ids are frame numbers from 1.

    There is no ``t_acq``: simulated time is not a time at which anything was acquired.
    """

    def __init__(self, run: Run, *, kind: Literal["frames", "patterns"]) -> None:
        self._run = run
        self._kind = kind
        self._closed = False
        self._first = 0
        self._allocate: Allocate = own_memory

    def start(self) -> RunStart:
        """Describe the run."""
        run = self._run
        common = RunStart(
            run_id=f"{run.experiment.name}-{run.conditions.seed}",
            source=f"simulate:{run.experiment.name}",
            items={},
            wavelength_m=run.experiment.wavelength_m,
            expected=run.conditions.frames,
            settings={
                "simulate": {
                    "seed": run.conditions.seed,
                    "frames": run.conditions.frames,
                    "layout": run.layout.name,
                    "kind": self._kind,
                }
            },
        )
        if self._kind == "patterns":
            return common.evolve(
                items={"intensity": ItemSpec.of(run.axis.shape, np.float32)},
                unit="2th_deg",
                constants={"axis": run.axis},
            )
        return common.evolve(
            items={"frame": ItemSpec.of(run.layout.shape, run.layout.dtype)},
            saturation=float(SATURATION),
            constants={"mask": run.mask},
        )

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` items."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Put frames into the memory that `allocate` gives."""
        self._allocate = allocate

    def __iter__(self) -> Iterator[Batch | Failure]:
        n = self._run.conditions.frames
        size = 1 if self._kind == "frames" else PATTERNS_PER_BATCH
        ids = np.arange(1, n + 1)
        spec = ItemSpec.of(self._run.layout.shape, self._run.layout.dtype)
        for first in range(self._first, n, size):
            if self._closed:
                return
            items = range(first, min(first + size, n))
            if self._kind == "frames":
                yield from read_frames(items, ids, spec, self._draw, allocate=self._allocate)
            else:
                arrays = {"intensity": np.stack([self._run.pattern(i) for i in items])}
                yield Batch(seq=np.array(items, np.int64), ids=ids[items], arrays=arrays)

    def _draw(self, first: int, out: NDArray[Any]) -> None:
        for i, frame in enumerate(out, first):
            frame[...] = self._run.frame(i)

    def close(self) -> None:
        """Stop after the present batch."""
        self._closed = True
