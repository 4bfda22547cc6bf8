"""What a model says of a series, and how well that agrees with labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.confidence import AmbiguityZone, classification_confidence, zones
from phasewatch.models.errors import ModelError
from phasewatch.models.gaps import fault
from phasewatch.models.labels import Labels
from phasewatch.models.predict import Predictions, Predictor, check
from phasewatch.models.series import Series

BLOCK = 64  # patterns between two calls of progress


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A model's view of a series.

    Attributes
    ----------
    index
        (n,) int64, the patterns of the series that could be used; all else is in their order.
    probability, novelty
        (n, n_classes) and (n,) float32.
    label
        (n,) int64, the most probable class.
    zones
        The ambiguity zones, in positions within `index`.
    confidence
        1 less the fraction of patterns in any zone.
    accuracy
        Fraction of the labelled patterns whose label is the given one; None without labels.
    """

    index: NDArray[np.int64]
    probability: NDArray[np.float32]
    novelty: NDArray[np.float32]
    label: NDArray[np.int64]
    zones: tuple[AmbiguityZone, ...]
    confidence: float
    accuracy: float | None
    n_labelled: int

    def boundary(self, zone: AmbiguityZone) -> tuple[int, int]:
        """Return the last sure pattern before `zone` and the first after it, as series indices.

        -1 and the number of patterns of the series where there is none.
        """
        ends = np.concatenate([[-1], self.index, [self.index[-1] + 1]])
        return int(ends[zone.after + 1]), int(ends[zone.before + 1])

    def metrics(self) -> dict[str, Any]:
        """Return the figures for a card."""
        return {
            "n_patterns": len(self.index),
            "n_labelled": self.n_labelled,
            "accuracy": self.accuracy,
            "confidence": self.confidence,
            "boundaries": [self.boundary(z) for z in self.zones],
            "mean_probability": float(self.probability.max(axis=1).mean()),
            "novel_fraction": float((self.novelty > 1).mean()),
        }


def evaluate(
    predictor: Predictor,
    series: Series,
    labels: Labels | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classify the usable patterns of `series`; tell `progress` how many are done, and of how many.

    To a model with context, a pattern that cannot be used is as if it had never been there.

    Raises
    ------
    ModelError
        The series was not made as the card says, its patterns cannot be used, or `labels` has other
        classes than the card.
    """
    card = predictor.card
    try:
        check(
            card,
            axis=series.axis,
            unit=series.unit,
            baseline=series.baseline,
            normalise=series.normalise,
        )
    except ModelError as error:
        raise ModelError(f"{series.source}: {error}") from None
    if labels is not None and labels.classes != card.classes:
        raise ModelError(
            f"labels: classes {', '.join(labels.classes)}, the model has {', '.join(card.classes)}"
        )
    faults = [fault(pattern) for pattern in series.intensity]
    index = np.array([i for i, why in enumerate(faults) if why is None], np.int64)
    if len(index) == 0:
        raise ModelError(f"{series.source}: no pattern can be used; pattern 0: {faults[0]}")
    parts: list[Predictions] = []
    for first in range(0, len(index), BLOCK):
        earlier, part = parts[-1].memory if parts else None, index[first : first + BLOCK]
        parts.append(predictor(series.intensity[part], earlier, position=series.index[part]))
        if progress is not None:
            progress(min(first + BLOCK, len(index)), len(index))
    probability = np.concatenate([part.probability for part in parts])
    label = probability.argmax(axis=1).astype(np.int64)
    accuracy, n_labelled = None, 0
    if labels is not None:
        found = dict(zip(index.tolist(), label.tolist(), strict=True))
        right = [found.get(i) == k for i, k in zip(labels.index, labels.label, strict=True)]
        accuracy, n_labelled = float(np.mean(right)), len(right)
    return Evaluation(
        index=index,
        probability=probability,
        novelty=np.concatenate([part.novelty for part in parts]),
        label=label,
        zones=tuple(zones(label, len(card.classes))),
        confidence=classification_confidence(label, len(card.classes)),
        accuracy=accuracy,
        n_labelled=n_labelled,
    )
