"""Labelled patterns, each with the patterns before it that a sequence network looks back to.

A window is the last t usable patterns of a series up to a labelled one, 1 <= t <= context + 1;
where the series has not so many, it has what there is. Without context t is 1. Windows of a batch
are held one after the other, so that all their patterns are embedded at once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Patterns of a series, some of them labelled.

    Attributes
    ----------
    patterns
        (m, n_points) float32, the usable patterns of the series in order, free of empty bins.
    at, label
        (n,) int64, which of them are labelled, rising; and their classes.
    context
        Patterns before a labelled one that belong to its window.
    """

    patterns: Float32
    at: Int64
    label: Int64
    context: int = 0

    def __len__(self) -> int:
        return len(self.at)

    def some(self, rows: Int64) -> "Labelled":
        """Return the same series with only some of its labels."""
        return Labelled(self.patterns, self.at[rows], self.label[rows], self.context)

    def lengths(self, rows: Int64, rng: np.random.Generator) -> Int64:
        """Draw the lengths of windows that end at the labelled patterns `rows` (n,)."""
        return np.minimum(rng.integers(1, self.context + 2, len(rows)), self.at[rows] + 1)

    def longest(self) -> Int64:
        """Return the length (n,) of the whole window of each labelled pattern."""
        return np.minimum(self.context, self.at) + 1

    def windows(self, rows: Int64, length: Int64) -> tuple[Float32, Int64]:
        """Return the patterns of windows, one after the other, and which window each belongs to."""
        window = np.repeat(np.arange(len(rows)), length)
        first = np.cumsum(length) - length
        return self.patterns[
            (self.at[rows] - length + 1 - first)[window] + np.arange(len(window))
        ], window


def logits(net: nn.Module, patterns: torch.Tensor, length: Int64) -> torch.Tensor:
    """Return the logits (n, outputs) of the last pattern of each of n windows.

    Parameters
    ----------
    patterns
        (sum of `length`, n_points), the windows one after the other.
    length
        (n,) patterns in each; all 1 for a network without context.
    """
    if not getattr(net, "context", 0):
        result: torch.Tensor = net(patterns)
        return result
    features = net.embed(patterns)  # type: ignore[operator]
    end = np.cumsum(length)
    rows = [np.flatnonzero(length == t) for t in np.unique(length)]
    parts = [
        net.follow(features[torch.from_numpy(end[r, None] - np.arange(length[r[0]], 0, -1))])  # type: ignore[operator]
        for r in rows
    ]
    return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(rows)))]
