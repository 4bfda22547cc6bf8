"""The smooth background under a pattern.

Asymmetric least squares (Eilers and Boelens 2005): the baseline ``z`` of a pattern ``y`` minimises

    sum_i w_i (y_i - z_i)^2  +  lam sum_i (z_i - 2 z_{i+1} + z_{i+2})^2

with ``w_i = p`` where ``y_i > z_i`` and ``1 - p`` elsewhere, found by solving and re-weighting from
``w = 1``. Defaults: Y. Sun, thesis (2023): lam 1e5, p 0.002, 10 solutions. (Eilers gives a point
exactly on the baseline no weight; here it has ``1 - p``, as in pybaselines, because a pattern of
zeros would otherwise have no weight at all.)
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasewatch.calibration.asls_kernel import asls_baselines
from phasewatch.calibration.errors import CalibrationError

Float64 = NDArray[np.float64]

# Known without pybaselines, which takes 2 s to import.
OURS: dict[str, tuple[str, ...]] = {"none": (), "asls": ("lam", "p", "n_iter")}


def asls(patterns: ArrayLike, *, lam: float = 1e5, p: float = 0.002, n_iter: int = 10) -> Float64:
    """Return the asymmetric least squares baselines of `patterns`.

    Parameters
    ----------
    patterns
        Intensity (n_bins,) or (n, n_bins). A bin that is not finite is bridged by a straight line
        between its neighbours (held constant at an end) and is NaN in the result.
    lam
        Smoothness, > 0.
    p
        Weight of what lies above the baseline, in (0, 1).
    n_iter
        Number of solutions, >= 1.

    Returns
    -------
    ndarray
        Baselines, shape of `patterns`. Each pattern is computed on its own: its baseline does not
        depend on the batch it came in.

    Raises
    ------
    CalibrationError
        An option is out of range; a pattern has no finite bin or fewer than 3 bins.
    """
    if not 0 < lam < np.inf:
        raise CalibrationError(f"baseline lam: must be positive and finite, not {lam}")
    if not 0 < p < 1:
        raise CalibrationError(f"baseline p: must be between 0 and 1, not {p}")
    if not n_iter >= 1 or n_iter != int(n_iter):
        raise CalibrationError(f"baseline n_iter: must be a whole number >= 1, not {n_iter}")
    return _bridged(patterns, lambda rows: asls_baselines(rows, float(lam), float(p), int(n_iter)))


@cache
def methods() -> dict[str, tuple[str, ...]]:
    """Return the options of each method that `estimate` knows, by its name."""
    from pybaselines import Baseline

    options: dict[str, tuple[str, ...]] = dict(OURS)
    for name, member in inspect.getmembers(Baseline, callable):
        if name.startswith("_"):
            continue
        parameters = inspect.signature(member).parameters.values()
        names = tuple(p.name for p in parameters if p.kind != p.VAR_KEYWORD)
        # collab_pls takes a set of patterns at a time
        if names[1:2] == ("data",) and name not in (*OURS, "collab_pls"):
            options[name] = names[2:]
    return options


def estimate(patterns: ArrayLike, method: str = "asls", **options: Any) -> Float64:
    """Return the baselines of `patterns` by a method of any name in `methods`.

    Parameters
    ----------
    patterns
        Intensity (n_bins,) or (n, n_bins); NaN as in `asls`.
    method
        ``none`` (zeros), ``asls``, or a method of pybaselines (``arpls``, ``snip``, ...).
    options
        The method's own.

    Raises
    ------
    CalibrationError
        The method or an option is unknown or out of range, or the pattern is refused by it.
    """
    taken = OURS[method] if method in OURS else methods().get(method)
    if taken is None:
        known = ", ".join(methods())
        raise CalibrationError(f"baseline method: {method!r} is unknown; known: {known}")
    for name in options:
        if name not in taken:
            known = ", ".join(taken) or "none"
            raise CalibrationError(f"baseline {method}: option {name!r} is unknown; known: {known}")
    if method == "none":
        return np.zeros(np.shape(patterns))
    if method == "asls":
        return asls(patterns, **options)
    from pybaselines import Baseline

    def of_all(rows: Float64) -> Float64:
        try:
            found = [getattr(Baseline(), method)(row, **options)[0] for row in rows]
        except (ValueError, TypeError, KeyError, IndexError, np.linalg.LinAlgError) as error:
            reason = " ".join(str(error).split())
            raise CalibrationError(f"baseline method {method}: {reason}") from error
        return np.array(found, np.float64).reshape(rows.shape)

    return _bridged(patterns, of_all)


def _bridged(patterns: ArrayLike, baselines_of: Callable[[Float64], Float64]) -> Float64:
    """Return the baselines of `patterns` by a function of finite patterns (n, n_bins)."""
    values = np.ascontiguousarray(patterns, dtype=np.float64)
    if values.ndim not in (1, 2) or values.shape[-1] < 3:
        raise CalibrationError(
            f"pattern: (n_bins,) or (n, n_bins) with n_bins >= 3 is expected, not {values.shape}"
        )
    rows = values.reshape(-1, values.shape[-1])
    finite = np.isfinite(rows)
    if finite.all():
        return baselines_of(rows).reshape(values.shape)
    if not finite.any(axis=1).all():
        raise CalibrationError("pattern: no bin is finite")
    index, rows = np.arange(rows.shape[1]), rows.copy()
    for row, known in zip(rows, finite, strict=True):
        row[~known] = np.interp(index[~known], index[known], row[known])
    return np.where(finite, baselines_of(rows), np.nan).reshape(values.shape)
