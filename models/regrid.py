"""Patterns from one axis onto another."""

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError


def regrid(
    patterns: NDArray[np.float32],
    from_axis: NDArray[np.float64],
    to_axis: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Interpolate patterns linearly onto another axis of the same unit.

    Parameters
    ----------
    patterns
        (n, n_from).
    from_axis, to_axis
        (n_from,) and (n_to,), increasing. `to_axis` may reach half a bin beyond `from_axis`, where
        the nearest value is taken.

    Returns
    -------
    ndarray
        (n, n_to) float32. A point beside an empty (NaN) bin is NaN.

    Raises
    ------
    ModelError
        `from_axis` does not cover `to_axis`.
    """
    if patterns.ndim != 2 or patterns.shape[1] != len(from_axis):
        raise ModelError(f"patterns: shape {patterns.shape} for an axis of {len(from_axis)} points")
    low = from_axis[0] - (from_axis[1] - from_axis[0]) / 2
    high = from_axis[-1] + (from_axis[-1] - from_axis[-2]) / 2
    if to_axis[0] < low or to_axis[-1] > high:
        raise ModelError(
            f"axis: the patterns reach from {from_axis[0]:.6g} to {from_axis[-1]:.6g}, the model "
            f"needs {to_axis[0]:.6g} to {to_axis[-1]:.6g}"
        )
    out = np.empty((len(patterns), len(to_axis)), np.float32)
    for row, pattern in zip(out, patterns, strict=True):
        row[:] = np.interp(to_axis, from_axis, pattern)
    return out
