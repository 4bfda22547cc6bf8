"""The stage that does all of integrate, baseline, normalise and classify on one torch device."""

from pathlib import Path
from typing import Any

import torch

from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.gpu.reduce import TorchReduction, can
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart, Unit
from phasewatch.pipeline.stages.classify import Classify
from phasewatch.pipeline.stages.integrate import Integrate
from phasewatch.pipeline.stages.reduce import Baseline, Normalise


class ReduceClassify:
    """Counts ``frame`` to what the four stages one after the other give.

    Arrays, start of the run and refusals are theirs; the numbers differ by rounding, less than 1e-5
    of a pattern's maximum. Counts go to `device` once; patterns come back only to be handed on.

    Parameters
    ----------
    calibration, n_bins, unit, split, range
        As for `Integrate`.
    baseline
        ``{"method": "asls", ...}`` or ``{"method": "none"}``.
    normalise
        ``minmax``, ``area`` or ``none``.
    model
        Folder of the model; None: the chain ends with patterns.
    device
        ``cpu`` or ``cuda:N``.
    """

    name = "reduce"

    def __init__(
        self,
        calibration: Calibration,
        *,
        n_bins: int,
        unit: Unit,
        split: str,
        range: tuple[float, float] | None,
        baseline: dict[str, Any],
        normalise: str,
        model: Path | None,
        device: str,
    ) -> None:
        can(baseline, normalise)
        self._baseline, self._normalise, self._device = baseline, normalise, device
        plan: dict[str, Any] = {"n_bins": n_bins, "unit": unit, "split": split, "range": range}
        self._integrate = Integrate(calibration, **plan, engine=self._engine)
        self._clean = (Baseline(**baseline), Normalise(normalise))
        self._classify = None if model is None else Classify(model, device=device)

    def start(self, run: RunStart) -> RunStart:
        """Build the plan once; refuse what the single stages refuse."""
        self._done = run.settings
        for stage in (self._integrate, *self._clean):
            run = stage.start(run)
        return run if self._classify is None else self._classify.start(run)

    def process(self, batch: Batch) -> Batch:
        """Replace ``frame`` by ``intensity``, and classify it."""
        reduced = self._reduction(batch.arrays["frame"])
        seen, ok = torch.stack([reduced.seen, reduced.ok]).tolist()
        if not all(seen):
            raise CalibrationError("frame: all pixels invalid (negative, saturated or NaN)")
        if not all(ok):
            raise CalibrationError(
                f"pattern: constant or of no positive area, {self._normalise} is not possible"
            )
        found = (
            {} if self._classify is None else self._classify.results(reduced.patterns, batch.seq)
        )
        return batch.with_arrays(drop=("frame",), intensity=reduced.patterns.cpu().numpy(), **found)

    def _engine(self, calibration: Calibration, **plan: Any) -> TorchReduction:
        # What the source has done already is not done again, as in the single stages.
        subtracted = self._done.get("baseline") == self._baseline
        scaled = self._done.get("normalise") == self._normalise
        self._reduction = TorchReduction(
            calibration,
            **plan,
            baseline={"method": "none"} if subtracted else self._baseline,
            normalise="none" if scaled else self._normalise,
            device=self._device,
        )
        return self._reduction
