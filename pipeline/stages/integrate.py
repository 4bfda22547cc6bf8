"""The stage that makes a pattern of a frame. Imports pyFAI: a run of patterns does without."""

from collections.abc import Callable
from typing import Any

import numpy as np

from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.integrate import Integrator
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart, Unit
from phasewatch.pipeline.errors import PipelineError


class Integrate:
    """Counts ``frame`` (n, height, width) to ``intensity`` (n, n_bins) float32.

    Empty bins are NaN. The geometry is the calibration's, joined with the shape, the mask and the
    saturation that the source said in the start of the run. `engine` makes what integrates: it has
    an ``axis`` and is called on frames. With `variance` also ``variance`` (n, n_bins) float32, that
    of Poisson counts, for which the engine has ``with_variance``.
    """

    name = "integrate"

    def __init__(
        self,
        calibration: Calibration,
        *,
        n_bins: int,
        unit: Unit = "2th_deg",
        split: str = "no",
        range: tuple[float, float] | None = None,
        variance: bool = False,
        engine: Callable[..., Any] = Integrator,
    ) -> None:
        self._calibration, self._engine, self._variance = calibration, engine, variance
        self._settings: dict[str, Any] = {
            "n_bins": n_bins,
            "unit": unit,
            "split": split,
            "range": range,
        }

    def start(self, run: RunStart) -> RunStart:
        """Build the plan once."""
        if "frame" not in run.items:
            raise PipelineError(f"integrate: the run carries {', '.join(run.items)}, not frame")
        height, width = run.items["frame"].shape
        known = self._calibration.wavelength
        if run.wavelength_m is not None and abs(run.wavelength_m / known - 1) > 1e-4:
            raise PipelineError(
                f"[calibration] wavelength: {known:g} m, but the source says {run.wavelength_m:g} m"
            )
        calibration = self._calibration.with_detector(
            shape=(height, width),
            mask=run.constants.get("mask"),
            saturation=run.saturation,
        )
        self._integrator = self._engine(calibration, **self._settings)
        pattern = ItemSpec.of((self._settings["n_bins"],), np.float32)
        more = {"variance": "poisson"} if self._variance else {}
        others = {k: v for k, v in run.items.items() if k != "frame"}
        constants = {k: v for k, v in run.constants.items() if k != "mask"}
        return run.evolve(
            items={**others, **dict.fromkeys(("intensity", *more), pattern)},
            unit=self._settings["unit"],
            wavelength_m=known,
            constants={**constants, "axis": self._integrator.axis},
            digests={**run.digests, "calibration": calibration.digest},
            settings={**run.settings, "integrate": {**self._settings, **more}},
        )

    def process(self, batch: Batch) -> Batch:
        """Replace ``frame`` by ``intensity``, and its ``variance`` if that was asked for."""
        frames = batch.arrays["frame"]
        if not self._variance:
            return batch.with_arrays(drop=("frame",), intensity=self._integrator(frames))
        intensity, variance = self._integrator.with_variance(frames)
        return batch.with_arrays(drop=("frame",), intensity=intensity, variance=variance)
