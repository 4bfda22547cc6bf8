"""Importance for every pattern of a series.

A network with context c > 0 sees pattern i in the window of patterns i - c .. i (fewer at the start
of the series). Its importance over the axis is that of pattern i itself, the last of the window;
the share of the earlier ones is summed over the axis, per pattern of the window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models.explain.gradients import gradient, integrated
from phasewatch.models.threads import one_thread

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

METHODS = ("gradient", "absolute", "input-x-gradient", "integrated")
LARGEST_GAP = 0.1  # of the mean rise: more is said


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """What one method says of n patterns.

    Attributes
    ----------
    values
        (n_classes, n, n_points): of the points of each pattern for each class.
    window
        (n_classes, n, context + 1): summed over the axis, for each pattern of the window, the last
        being the pattern itself; NaN where the series had not begun. None without context. Of
        ``gradient``, whose sum over points has no meaning, the absolute values are summed.
    gap, rise
        Of ``integrated``, in log-odds, else None: the largest violation of completeness, and the
        mean absolute rise from the baseline to a pattern.
    """

    values: Float32
    window: Float32 | None = None
    gap: float | None = None
    rise: float | None = None

    @property
    def incomplete(self) -> str:
        """How far the sum over the axis misses the rise, where that is much; else nothing."""
        if self.gap is None or self.rise is None or self.gap <= LARGEST_GAP * self.rise:
            return ""
        return (
            f"not complete: the log-odds rise by {self.rise:.2g} on average, and the sum misses "
            f"that by up to {self.gap:.2g}"
        )

    def mean(self, label: NDArray[np.int64]) -> Float32:
        """Return (n_classes, n_points): for class k, the mean over the patterns labelled k.

        NaN for a class without a pattern.
        """
        return class_means(self.values, label)


def class_means(values: Float32, label: NDArray[np.int64]) -> Float32:
    """Return (n_classes, n_points): mean of ``values[k]`` over patterns labelled k; NaN if none."""
    out = np.full((len(values), values.shape[2]), np.nan, np.float32)
    for k, own in enumerate(values):
        if (label == k).any():
            out[k] = own[label == k].mean(axis=0)
    return out


def importance(
    net: nn.Module,
    patterns: Float32,
    *,
    methods: Sequence[str] = METHODS,
    at: NDArray[np.int64] | None = None,
    baseline: Float32 | None = None,
    steps: int = 32,
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> dict[str, Importance]:
    """Explain the patterns of a series, each by itself, so that it matters not which others are.

    Parameters
    ----------
    net
        In evaluation mode, on the CPU; its attribute ``context``, if it has one, is c.
    patterns
        (n, n_points), free of empty bins, in order.
    methods
        Some of `METHODS`.
    at
        Positions of the patterns to explain; default all.
    baseline
        (n_points,), of integrated gradients. Default: the mean of `patterns`, so that they say what
        sets a pattern apart from the run's average.
    steps
        Of integrated gradients.
    progress
        Called after each pattern with the number done, and of how many.

    Raises
    ------
    ModelError
        The network cannot be differentiated.
    """
    at = np.arange(len(patterns)) if at is None else at
    context = int(getattr(net, "context", 0))
    whole = torch.from_numpy(np.ascontiguousarray(patterns, np.float32))
    base = whole.double().mean(dim=0).float() if baseline is None else torch.from_numpy(baseline)
    rows: dict[str, list[torch.Tensor]] = {method: [] for method in methods}
    gaps, rises = [], []
    with one_thread():
        for done, i in enumerate(at.tolist(), 1):
            given = whole[max(0, i - context) : i + 1] if context else whole[i]
            if set(methods) != {"integrated"}:
                slope = gradient(net, given[None], temperature=temperature)[:, 0]
                ready = {
                    "gradient": slope,
                    "absolute": slope.abs(),
                    "input-x-gradient": slope * given,
                }
                for method in set(methods) - {"integrated"}:
                    rows[method].append(ready[method])
            if "integrated" in methods:
                whole_way = integrated(
                    net, given, base.expand_as(given), steps=steps, temperature=temperature
                )
                rows["integrated"].append(whole_way.importance)
                gaps.append(whole_way.gap.abs().max())
                rises.append(whole_way.rise.abs().mean())
            if progress is not None:
                progress(done, len(at))
    found = {method: _importance(row, context, method) for method, row in rows.items()}
    if gaps:
        rise = float(sum(rises) / len(rises))
        found["integrated"] = replace(found["integrated"], gap=float(max(gaps)), rise=rise)
    return found


def _importance(rows: list[torch.Tensor], context: int, method: str) -> Importance:
    if not context:
        return Importance(torch.stack(rows, dim=1).numpy())
    values = torch.stack([row[:, -1] for row in rows], dim=1).numpy()
    window = np.full((*values.shape[:2], context + 1), np.nan, np.float32)
    for i, row in enumerate(rows):
        sums = (row.abs() if method == "gradient" else row).sum(dim=2)
        window[:, i, context + 1 - sums.shape[1] :] = sums
    return Importance(values, window)
