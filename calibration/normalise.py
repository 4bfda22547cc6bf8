"""Brings patterns to one scale.

``y`` is a pattern with its empty bins (NaN) left out; they stay NaN.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasewatch.calibration.errors import CalibrationError

METHODS = ("none", "minmax", "area", "monitor")

Patterns = NDArray[np.float32]
Float64 = NDArray[np.float64]


def normalise(
    patterns: ArrayLike,
    method: str,
    *,
    monitor: ArrayLike | None = None,
    axis: ArrayLike | None = None,
) -> Patterns:
    """Return `patterns` normalised, each on its own.

    Parameters
    ----------
    patterns
        Intensity (n_bins,) or (n, n_bins).
    method
        ``minmax``: ``(y - min y) / (max y - min y)``; ``area``: ``y`` over its integral along
        `axis` (trapezoids); ``monitor``: ``y`` over the monitor; ``none``: ``y``.
    monitor
        Counts of the incident-beam monitor, (n,) or one number, > 0.
    axis
        (n_bins,), for ``area``; by default the bins are 1 wide.

    Raises
    ------
    CalibrationError
        The method is unknown; a pattern is constant, empty or of no positive area; the monitor is
        missing or not positive.
    """
    values = np.array(patterns, np.float64, order="C")
    rows = np.atleast_2d(values)
    offsets, units = offsets_and_units(rows, method, monitor=monitor, axis=axis)
    rows -= offsets
    rows /= units
    return values.astype(np.float32)


def offsets_and_units(
    patterns: ArrayLike,
    method: str,
    *,
    monitor: ArrayLike | None = None,
    axis: ArrayLike | None = None,
) -> tuple[Float64, Float64]:
    """Return what `normalise` subtracts from `patterns` (n, n_bins) and divides them by.

    Both (n, 1); the variance of a normalised pattern is its variance over the square of the second.

    Raises
    ------
    CalibrationError
        As `normalise`.
    """
    if method not in METHODS:
        raise CalibrationError(f"normalise: {method!r} is unknown; known: {', '.join(METHODS)}")
    rows = np.asarray(patterns, np.float64)
    if rows.ndim != 2 or rows.shape[-1] == 0:
        raise CalibrationError(f"pattern: (n_bins,) or (n, n_bins) is expected, not {rows.shape}")
    nothing = np.zeros((len(rows), 1))
    if method == "minmax":
        low, high = _extent(rows)
        return low, high - low
    if method == "area":
        return nothing, _areas(rows, axis)
    if method == "monitor":
        return nothing, _monitor(monitor, len(rows))
    return nothing, nothing + 1


def _extent(rows: Float64) -> tuple[Float64, Float64]:
    low = np.fmin.reduce(rows, axis=1, keepdims=True)
    high = np.fmax.reduce(rows, axis=1, keepdims=True)
    if not (high > low).all() or not np.isfinite(high - low).all():
        raise CalibrationError("pattern: constant or without a finite bin, minmax is not possible")
    return low, high


def _areas(rows: Float64, axis: ArrayLike | None) -> Float64:
    x = np.arange(rows.shape[1], dtype=float) if axis is None else np.asarray(axis, np.float64)
    if x.shape != rows.shape[1:]:
        raise CalibrationError(f"axis: shape {x.shape} for {rows.shape[1]} bins")
    areas = np.empty((len(rows), 1))
    for row, area in zip(rows, areas, strict=True):
        finite = np.isfinite(row)
        area[0] = np.trapezoid(row[finite], x[finite])
    if not (areas > 0).all():
        raise CalibrationError("pattern: its area is not positive")
    return areas


def _monitor(monitor: ArrayLike | None, n: int) -> Float64:
    if monitor is None:
        raise CalibrationError("monitor: is missing, but normalise = monitor")
    counts = np.atleast_1d(np.asarray(monitor, np.float64))
    if counts.shape not in ((n,), (1,)):
        raise CalibrationError(f"monitor: shape {counts.shape} for {n} patterns")
    if not (np.isfinite(counts) & (counts > 0)).all():
        raise CalibrationError("monitor: must be positive and finite")
    return counts[:, np.newaxis]
