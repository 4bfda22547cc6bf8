"""Bins without a value: which patterns can be used all the same, and how they are bridged.

The same function prepares patterns for training and for prediction. A bin is empty where it is NaN
or infinite (the integrator gives NaN where no valid pixel falls into a bin).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError

Float32 = NDArray[np.float32]

LARGEST = 1e16  # the sum of 1e5 squares stays below the 3.4e38 of float32


def fault(pattern: Float32) -> str | None:
    """Say why `pattern` (n_points,) cannot be used, or None when it can.

    It can when at least half of its bins have a value, these are not all the same, and float32 can
    hold the squares that a normalisation adds up.
    """
    values = pattern[np.isfinite(pattern)]
    if 2 * values.size < pattern.size:
        return f"only {values.size} of {pattern.size} bins have a value"
    if values.min() == values.max():
        return f"all bins are {values[0]:g}"
    if (largest := np.abs(values).max()) > LARGEST:
        return f"a bin is {largest:g}, above {LARGEST:g}"
    return None


def bridge(patterns: Float32) -> Float32:
    """Return `patterns` (n, n_points) with empty bins interpolated linearly between neighbours.

    Empty bins at an end take the nearest value.

    Raises
    ------
    ModelError
        A pattern has a `fault`.
    """
    patterns = np.asarray(patterns)
    if patterns.ndim != 2:
        raise ModelError(f"patterns: (n, n_points) wanted, not shape {patterns.shape}")
    whole = np.array(patterns, np.float32, order="C")
    plain = np.empty(len(whole), np.bool_)
    _find_plain(whole, plain)
    for i in np.flatnonzero(~plain):
        row = whole[i]
        if why := fault(row):
            raise ModelError(f"pattern {i}: {why}")
        empty = ~np.isfinite(row)
        if empty.any():
            index = np.arange(row.size)
            row[empty] = np.interp(index[empty], index[~empty], row[~empty])
    return whole


@njit(nogil=True, cache=True)
def _find_plain(patterns: Float32, plain: NDArray[np.bool_]) -> None:
    """Set `plain` (n,) to whether a pattern has neither a fault nor an empty bin.

    By counting, which makes vectors: 1 us a pattern.
    """
    largest = np.float32(LARGEST)
    for i in range(len(patterns)):
        row = patterns[i]
        good = different = 0
        for j in range(row.size):
            good += abs(row[j]) <= largest  # not if it is NaN
            different += row[j] != row[0]
        plain[i] = good == row.size and different > 0
