"""Labelled patterns, each with the patterns before it that a sequence network looks back to.

A window is the last t usable patterns of a series up to a labelled one, 1 <= t <= context + 1;
where the series has not so many, it has what there is. Without context t is 1. Windows of a batch
are held one after the other.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models.augment import noise_level

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
    level
        (m,) the `noise_level` of each pattern.
    """

    patterns: Float32
    at: Int64
    label: Int64
    context: int
    level: NDArray[np.float64]

    @classmethod
    def of(cls, patterns: Float32, at: Int64, label: Int64, context: int) -> "Labelled":
        """Find the noise of `patterns` and hold it with them."""
        level = np.array([noise_level(pattern) for pattern in patterns])
        return cls(patterns, at, label, context, level)

    def __len__(self) -> int:
        return len(self.at)

    def some(self, rows: Int64) -> "Labelled":
        """Return the same series with only some of its labels."""
        return Labelled(self.patterns, self.at[rows], self.label[rows], self.context, self.level)

    def lengths(self, rows: Int64, rng: np.random.Generator) -> Int64:
        """Draw one length for windows that end at the labelled patterns `rows` (n,).

        As far as the series reaches back; the whole context half of the time, as at prediction.
        """
        whole = rng.random() < 0.5
        length = self.context + 1 if whole else rng.integers(1, self.context + 2)
        return np.minimum(length, self.at[rows] + 1)

    def longest(self) -> Int64:
        """Return the length (n,) of the whole window of each labelled pattern."""
        return np.minimum(self.context, self.at) + 1

    def windows(self, rows: Int64, length: Int64) -> tuple[Int64, Int64]:
        """Return where in `patterns` windows lie, one after the other; and which each is part of.

        They have `length` (n,) patterns and end at the labelled patterns `rows` (n,).
        """
        window = np.repeat(np.arange(len(rows)), length)
        first = np.cumsum(length) - length
        start = self.at[rows] - length + 1
        return (start - first)[window] + np.arange(len(window)), window


def logits(net: nn.Module, patterns: torch.Tensor, length: Int64) -> torch.Tensor:
    """Return the logits (n, outputs) of the last pattern of each of n windows.

    Windows of one length go through the network together.

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
    first = np.cumsum(length) - length
    rows = [np.flatnonzero(length == t) for t in np.unique(length)]
    parts = []
    for r in rows:
        held = first[r, None] + np.arange(length[r[0]])
        parts.append(net(patterns[torch.from_numpy(held)]))
    return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(rows)))]
