"""The stage that puts a probability on every class."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError
from phasewatch.models.predict import Predictor, check, regrid
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError


class Classify:
    """Adds ``probability`` (n, n_classes), ``label`` (n,) and ``novelty`` (n,) to ``intensity``.

    The model's card must have the axis, the baseline and the normalisation of the chain; with
    `regrid` the patterns are interpolated onto the card's axis instead.
    """

    name = "classify"

    def __init__(self, model: Path, *, device: str = "auto", regrid: bool = False) -> None:
        self._predictor = Predictor.load(model, device=device)
        self._folder, self._regrid = model, regrid
        self.on_cpu = self._predictor.device.type == "cpu"

    def start(self, run: RunStart) -> RunStart:
        """Refuse a card that is not made for these patterns."""
        if "intensity" not in run.items or "axis" not in run.constants:
            raise PipelineError("classify: the run carries no intensity on an axis")
        card = self._predictor.card
        self._axis = run.constants["axis"]
        try:
            check(
                card,
                axis=card.axis.values() if self._regrid else self._axis,
                unit=run.unit,
                baseline=run.settings.get("baseline", {"method": "none"}),
                normalise=run.settings.get("normalise", "none"),
            )
        except ModelError as error:
            raise PipelineError(f"[classifier] model {self._folder}: {error}") from None
        if self._regrid:
            regrid(np.zeros((1, len(self._axis)), np.float32), self._axis, card.axis.values())
        return run.evolve(
            items={
                **run.items,
                "probability": ItemSpec.of((len(card.classes),), np.float32),
                "label": ItemSpec.of((), np.int32),
                "novelty": ItemSpec.of((), np.float32),
            },
            classes=tuple(card.classes),
            digests={**run.digests, "model": card.sha256},
        )

    def process(self, batch: Batch) -> Batch:
        """Classify each pattern on its own."""
        patterns = batch.arrays["intensity"]
        if self._regrid:
            patterns = regrid(patterns, self._axis, self._predictor.card.axis.values())
        return batch.with_arrays(**self.results(patterns))

    def results(self, patterns: NDArray[np.float32] | torch.Tensor) -> dict[str, NDArray[Any]]:
        """Return the three arrays for `patterns` (n, n_points) on the card's axis."""
        predictions = self._predictor(patterns)
        return {
            "probability": predictions.probability,
            "label": predictions.probability.argmax(axis=1).astype(np.int32),
            "novelty": predictions.novelty,
        }
