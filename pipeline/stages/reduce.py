"""The stages of the reduction: from ``frame`` or raw ``intensity`` to a clean ``intensity``."""

from typing import Any

import numpy as np

from phasewatch.calibration import baseline as baselines
from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.integrate import Integrator
from phasewatch.calibration.normalise import METHODS, normalise
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart, Unit
from phasewatch.pipeline.errors import PipelineError


def _needs_intensity(run: RunStart, stage: str) -> None:
    if "intensity" not in run.items:
        raise PipelineError(f"{stage}: the run carries {', '.join(run.items)}, not intensity")


class Integrate:
    """Counts ``frame`` (n, height, width) to ``intensity`` (n, n_bins) float32.

    Empty bins are NaN. The geometry is the calibration's, joined with the shape, the mask and the
    saturation that the source said in the start of the run.
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
    ) -> None:
        self._calibration = calibration
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
        self._integrator = Integrator(calibration, **self._settings)
        constants = {k: v for k, v in run.constants.items() if k != "mask"}
        return run.evolve(
            items={"intensity": ItemSpec.of((self._settings["n_bins"],), np.float32)},
            unit=self._settings["unit"],
            wavelength_m=known,
            constants={**constants, "axis": self._integrator.axis},
            digests={**run.digests, "calibration": calibration.digest},
            settings={**run.settings, "integrate": self._settings},
        )

    def process(self, batch: Batch) -> Batch:
        """Replace ``frame`` by ``intensity``."""
        intensity = self._integrator(batch.arrays["frame"])
        return batch.with_arrays(drop=("frame",), intensity=intensity)


class Baseline:
    """Subtracts a baseline from ``intensity``; does nothing where the source already has."""

    name = "baseline"

    def __init__(self, method: str = "asls", **options: Any) -> None:
        baselines.estimate(np.empty((0, 8)), method, **options)  # checks method and options
        self._method, self._options = method, options

    def start(self, run: RunStart) -> RunStart:
        """Refuse patterns from which another baseline was subtracted."""
        _needs_intensity(run, self.name)
        wanted = {"method": self._method, **self._options}
        had = run.settings.get("baseline", {"method": "none"})
        if had["method"] != "none" and had != wanted:
            raise PipelineError(f"[reduce] baseline: {wanted}, but the source subtracted {had}")
        self._skip = had == wanted
        return run.evolve(settings={**run.settings, "baseline": wanted})

    def process(self, batch: Batch) -> Batch:
        """Subtract."""
        if self._skip:
            return batch
        intensity = batch.arrays["intensity"]
        fitted = baselines.estimate(intensity, self._method, **self._options)
        return batch.with_arrays(intensity=(intensity - fitted).astype(np.float32))


class Normalise:
    """Scales ``intensity``; does nothing where the source already has."""

    name = "normalise"

    def __init__(self, method: str = "minmax") -> None:
        if method not in METHODS:
            raise PipelineError(
                f"[reduce] normalise: no method {method!r}; there are: {', '.join(METHODS)}"
            )
        self._method = method

    def start(self, run: RunStart) -> RunStart:
        """Refuse patterns that are normalised in another way."""
        _needs_intensity(run, self.name)
        had = run.settings.get("normalise", "none")
        if had not in ("none", self._method):
            raise PipelineError(f"[reduce] normalise: {self._method}, but the source did {had}")
        if self._method == "monitor" and "monitor" not in run.items:
            raise PipelineError("[reduce] normalise: monitor, but the source gives no monitor")
        self._skip = had == self._method
        return run.evolve(settings={**run.settings, "normalise": self._method})

    def process(self, batch: Batch) -> Batch:
        """Scale each pattern on its own."""
        if self._skip:
            return batch
        return batch.with_arrays(
            intensity=normalise(
                batch.arrays["intensity"],
                self._method,
                monitor=batch.arrays.get("monitor"),
            )
        )
