"""The stage that puts a probability on every class."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError
from phasewatch.models.predict import Memory, Predictor, check, regrid
from phasewatch.pipeline.batch import Batch, Int64
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError


class Classify:
    """Adds ``probability`` (n, n_classes), ``label`` (n,) and ``novelty`` (n,) to ``intensity``.

    The model's card must have the axis, the baseline and the normalisation of the chain; with
    `regrid` the patterns are interpolated onto the card's axis instead.

    A model with temporal `context` also looks at the patterns with the `context` seqs before. Then,
    and only then, the stage must be given the items of a run in order, and remembers.
    """

    name = "classify"

    def __init__(self, model: Path, *, device: str = "auto", regrid: bool = False) -> None:
        self._predictor = Predictor.load(model, device=device)
        self._folder, self._regrid = model, regrid
        self.on_cpu = self._predictor.device.type == "cpu"
        self.context = self._predictor.card.context
        self._memory: Memory | None = None

    def start(self, run: RunStart) -> RunStart:
        """Refuse a card that is not made for these patterns."""
        if "intensity" not in run.items or "axis" not in run.constants:
            raise PipelineError("classify: the run carries no intensity on an axis")
        card = self._predictor.card
        self.forget()
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

    def forget(self) -> None:
        """Begin at the start of a run."""
        self._memory = None

    def process(self, batch: Batch) -> Batch:
        """Classify each pattern, by itself or after those before."""
        patterns = batch.arrays["intensity"]
        if self._regrid:
            patterns = regrid(patterns, self._axis, self._predictor.card.axis.values())
        return batch.with_arrays(**self.results(patterns, batch.seq))

    def results(
        self, patterns: NDArray[np.float32] | torch.Tensor, seq: Int64
    ) -> dict[str, NDArray[Any]]:
        """Return the three arrays for `patterns` (n, n_points) on the card's axis, items `seq`."""
        predictions = self._predictor(patterns, self._memory, position=seq)
        self._memory = predictions.memory
        return {
            "probability": predictions.probability,
            "label": predictions.probability.argmax(axis=1).astype(np.int32),
            "novelty": predictions.novelty,
        }
