"""The stages that clean an ``intensity``: baseline and normalise.

A ``variance`` beside it is that of the counts: baseline, minimum and scale are taken as known, so a
baseline leaves it and a scale divides it by its square.
"""

from typing import Any

import numpy as np

from phasewatch.calibration import baseline as baselines
from phasewatch.calibration.normalise import METHODS, normalise, offsets_and_units
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError


def _needs_intensity(run: RunStart, stage: str) -> None:
    if "intensity" not in run.items:
        raise PipelineError(f"{stage}: the run carries {', '.join(run.items)}, not intensity")


class Baseline:
    """Subtracts a baseline from ``intensity``; does nothing where the source already has."""

    name = "baseline"

    def __init__(self, method: str = "asls", **options: Any) -> None:
        try:  # checks method and options
            baselines.estimate(np.empty((0, 8)), method, **options)
        except TypeError as error:
            raise PipelineError(f"[reduce] baseline: {method} {options}: {error}") from None
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
        clean = np.subtract(intensity, fitted, out=fitted).astype(np.float32)
        return batch.with_arrays(intensity=clean)


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
        patterns, monitor = batch.arrays["intensity"], batch.arrays.get("monitor")
        scaled = batch.with_arrays(intensity=normalise(patterns, self._method, monitor=monitor))
        if "variance" not in batch.arrays:
            return scaled
        _, units = offsets_and_units(patterns, self._method, monitor=monitor)
        variance = batch.arrays["variance"] / np.square(units)
        return scaled.with_arrays(variance=variance.astype(np.float32))
