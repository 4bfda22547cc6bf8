"""All that can be said of why a model labels a series as it does, and the figures of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from phasewatch.models.card import Card
from phasewatch.models.evaluate import Evaluation
from phasewatch.models.explain.along import Importance, importance
from phasewatch.models.explain.attention import attention
from phasewatch.models.explain.fitted import Bins, Components, bins, components
from phasewatch.models.explain.peaks import Share, fractions, judge
from phasewatch.models.explain.weights import WeightMap, weight_map
from phasewatch.models.gaps import bridge
from phasewatch.models.series import Series

Float32 = NDArray[np.float32]
Bar = Callable[[str], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why a model labels n patterns as it does.

    Attributes
    ----------
    index
        (n,) int64, positions in the series of the patterns explained.
    label, probability
        (n,) and (n, n_classes), the model's.
    patterns, baseline
        (n, n_points) bridged, and (n_points,) of integrated gradients.
    importance
        By method; empty where the model votes.
    regions
        (n, n_points) true Bragg peaks, or None where they are not known.
    weights, components, bins, attention
        What the weights alone and the attention say, as far as the model has them.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    probability: Float32
    patterns: Float32
    baseline: Float32
    importance: dict[str, Importance]
    regions: NDArray[np.bool_] | None = None
    weights: WeightMap | None = None
    components: Components | None = None
    bins: Bins | None = None
    attention: dict[str, Float32] = field(default_factory=dict)

    def shares(self, method: str) -> dict[str, dict[str | int, Share]]:
        """Return how much of the importance falls on peaks (`peaks.judge`); empty if not known."""
        if self.regions is None:
            return {}
        return judge(self.importance[method].values, self.regions, self.label)


def explain(
    net: nn.Module,
    card: Card,
    series: Series,
    found: Evaluation,
    *,
    methods: Sequence[str],
    regions: NDArray[np.bool_] | None = None,
    zero: bool = False,
    steps: int = 32,
    every: int = 1,
    bar: Bar,
) -> Explanation:
    """Explain the usable patterns of a series.

    Parameters
    ----------
    net, card
        As loaded, in evaluation mode.
    found
        What the model says of `series`.
    methods
        Of `along.METHODS`.
    regions
        (len(series), n_points) Bragg peaks.
    zero
        Take 0 as the baseline of integrated gradients, not the mean of the series.
    every
        Explain only every so many patterns; the context of each is whole all the same.
    bar
        Opens a progress bar under a name; gives the function that moves it (done, of how many).

    Raises
    ------
    ModelError
        The network cannot be differentiated.
    """
    usable = bridge(series.intensity[found.index])
    at = np.arange(0, len(usable), every)
    label, n_classes = found.label[at], len(card.classes)
    baseline = np.zeros_like(usable[0]) if zero else usable.mean(axis=0, dtype=np.float64)
    baseline = baseline.astype(np.float32)
    by_method: dict[str, Importance] = {}
    if learned(net):
        with bar("importance") as progress:
            by_method = importance(
                net,
                usable,
                methods=methods,
                at=at,
                baseline=baseline,
                steps=steps,
                temperature=card.temperature,
                progress=progress,
            )
    maps: dict[str, Float32] = {}
    if hasattr(net, "attention"):
        with bar("attention") as progress:
            maps = attention(net, usable, label, n_classes=n_classes, at=at, progress=progress)
    return Explanation(
        index=found.index[at],
        label=label,
        probability=found.probability[at],
        patterns=usable[at],
        baseline=baseline,
        importance=by_method,
        regions=None if regions is None else regions[found.index[at]],
        weights=weight_map(net, n_points=card.axis.n, n_classes=n_classes),
        components=components(net),
        bins=bins(net),
        attention=maps,
    )


def learned(net: nn.Module) -> bool:
    """Say whether the network has weights that were learned by gradient, and so a gradient."""
    return any(True for _ in net.parameters())


def arrays(told: Explanation, axis: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return all arrays for ``explanation.npz``.

    ``absolute`` is kept as its mean per class only: pattern by pattern it is that of ``gradient``.
    """
    out: dict[str, NDArray[Any]] = {
        "axis": axis,
        "index": told.index,
        "label": told.label,
        "probability": told.probability,
        "baseline": told.baseline,
    }
    for method, one in told.importance.items():
        if method != "absolute" or "gradient" not in told.importance:
            out[method] = one.values
            if one.window is not None:
                out[f"{method}.window"] = one.window
        out[f"{method}.mean"] = one.mean(told.label)
        if told.regions is not None:
            own = one.values[told.label, np.arange(len(told.label))]
            out[f"{method}.peak-fraction"] = fractions(own, told.regions)
    if told.regions is not None:
        out["peak-coverage"] = told.regions.mean(axis=1)
        out["peaks"] = np.packbits(told.regions, axis=1)
    parts = {"weights": told.weights, "components": told.components, "bins": told.bins}
    for name, part in parts.items():
        if part is not None:
            fields = {key: getattr(part, key) for key in part.__slots__}
            out |= {f"{name}.{key}": a for key, a in fields.items() if a is not None}
    return out | {f"attention.{name}": values for name, values in told.attention.items()}


def save(path: Path, told: Explanation, axis: NDArray[np.float64]) -> None:
    """Write `arrays` as ``.npz``."""
    np.savez(path, allow_pickle=False, **arrays(told, axis))


def figures(told: Explanation, card: Card) -> dict[str, Any]:
    """Return the figures for ``explanation.json``."""

    def by_class(shares: dict[str | int, Share]) -> dict[str, Any]:
        return {
            key if isinstance(key, str) else f"class {card.classes[key]}": one.figures()
            for key, one in shares.items()
        }

    counts = np.bincount(told.label, minlength=len(card.classes))
    methods: dict[str, dict[str, Any]] = {}
    for method, one in told.importance.items():
        shares = told.shares(method)
        methods[method] = {"peaks": {k: by_class(v) for k, v in shares.items()} or None}
        if one.gap is not None:
            methods[method] |= {"largest_gap": one.gap, "mean_rise": one.rise}
    return {
        "architecture": card.architecture,
        "n_patterns": len(told.index),
        "labelled": dict(zip(card.classes, counts.tolist(), strict=True)),
        "methods": methods,
        "weights": [
            name for name in ("weights", "components", "bins") if getattr(told, name) is not None
        ],
        "attention": sorted(told.attention),
    }
