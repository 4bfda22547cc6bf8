"""``simulate:EXPERIMENT``: a run of the digital twin, made frame by frame as it is read."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from phasewatch.bench.twin.detector import SATURATION
from phasewatch.bench.twin.run import Run, open_run
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError

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

    def __iter__(self) -> Iterator[Batch]:
        n = self._run.conditions.frames
        size = 1 if self._kind == "frames" else PATTERNS_PER_BATCH
        for first in range(0, n, size):
            if self._closed:
                return
            seq = np.arange(first, min(first + size, n), dtype=np.int64)
            if self._kind == "frames":
                arrays = {"frame": np.stack([self._run.frame(i) for i in seq.tolist()])}
            else:
                arrays = {"intensity": np.stack([self._run.pattern(i) for i in seq.tolist()])}
            yield Batch(seq=seq, ids=seq + 1, arrays=arrays)

    def close(self) -> None:
        """Stop after the present batch."""
        self._closed = True
