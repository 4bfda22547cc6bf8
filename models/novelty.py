"""How far a pattern lies from the patterns a model was trained on.

A pattern is first averaged over neighbouring bins to M points at most, which keeps its peaks apart
and takes out most of its noise and of small shifts, and then standardised to mean 0 and standard
deviation 1 (the networks see nothing else of its scale): x. With m the mean of x over the training
patterns, P their k leading principal axes (rows, orthonormal) and v their variances along these:

    t = P (x - m)                  score
    S = sqrt(sum_j t_j^2 / v_j)    distance within the subspace of the training patterns
    R = |x - m - P^T t|            distance from that subspace
    novelty = max(S / S_lim, R / R_lim)

S_lim and R_lim are the 99th percentile (the largest, for fewer than 100) of S and R of training
patterns scored by statistics that were fitted without them and without their replicas. So 1 is the
edge of the training range. The two distances are those of multivariate process control (Jackson and
Mudholkar, Technometrics 21, 341, 1979).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError

POINTS = 256  # M
MAX_AXES = 32
EXPLAINED = 0.99  # of the variance, if MAX_AXES can
FOLDS = 10
QUANTILE = 0.99
# In units of the standardised pattern: less than 0.1 % of it is never novel. This keeps R_lim from
# vanishing for noise-free training patterns.
FLOOR = 1e-3

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Statistics of the training patterns.

    Attributes
    ----------
    mean
        (M,) float32, m.
    axes
        (k, M) float32, P.
    variance
        (k,) float32, v.
    limits
        (2,) float32, S_lim and R_lim.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variance: NDArray[np.float32]
    limits: NDArray[np.float32]

    def __post_init__(self) -> None:
        k = len(self.variance)
        shapes = [a.shape for a in (self.axes, self.mean, self.variance, self.limits)]
        if shapes != [(k, self.mean.size), (self.mean.size,), (k,), (2,)]:
            raise ModelError("novelty statistics: shapes of mean, axes, variance, limits disagree")
        if not all(np.isfinite(a).all() for a in self.arrays().values()):
            raise ModelError("novelty statistics: a value is not finite")
        if (self.variance <= 0).any() or (self.limits <= 0).any():
            raise ModelError("novelty statistics: variance and limits must be positive")

    def __call__(self, patterns: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the novelty (n,) float32 of `patterns` (n, n_points), free of empty bins."""
        score, residual = self.distances(patterns)
        return np.maximum(score / self.limits[0], residual / self.limits[1]).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the statistics by name, as `from_arrays` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> "Novelty":
        """Make the statistics from what `arrays` gave."""
        expected = {f.name for f in fields(cls)}
        if set(arrays) != expected:
            raise ModelError(f"novelty statistics: {sorted(arrays)}, not {sorted(expected)}")
        return cls(**arrays)

    def distances(self, patterns: NDArray[np.float32]) -> tuple[Float64, Float64]:
        """Return S and R, each (n,), of `patterns` (n, n_points)."""
        score, residual = np.empty(len(patterns)), np.empty(len(patterns))
        patterns = np.ascontiguousarray(patterns, np.float32)
        _distances(patterns, self.mean, self.axes, self.variance, score, residual)
        return score, residual


def reduce(pattern: NDArray[np.float32], m: int) -> Float64:
    """Return `pattern` (n_points,) averaged to `m` points and standardised: x (m,) float64."""
    x = np.empty(min(m, len(pattern)))
    _reduce(np.ascontiguousarray(pattern, np.float32), x)
    return x


# Compiled, one pattern after the other: 3 us each where numpy took 45. Vectors run along a pattern
# ("reassoc"), never across patterns: a pattern's novelty does not depend on its batch.
@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _reduce(pattern: NDArray[np.float32], x: Float64) -> None:
    n, m, first = pattern.size, x.size, 0
    for j in range(m):
        last = (j + 1) * n // m
        total = 0.0
        for i in range(first, last):
            total += pattern[i]
        x[j] = total / (last - first)
        first = last
    x -= x.sum() / m
    scale = np.sqrt((x * x).sum() / m)
    if scale > 0:
        x /= scale


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _distances(
    patterns: NDArray[np.float32],
    mean: NDArray[np.float32],
    axes: NDArray[np.float32],
    variance: NDArray[np.float32],
    score: Float64,
    residual: Float64,
) -> None:
    x = np.empty(mean.size)
    t = np.empty(len(axes))
    for i in range(len(patterns)):
        _reduce(patterns[i], x)
        x -= mean
        for k in range(len(axes)):
            t[k] = 0.0
            for j in range(x.size):
                t[k] += axes[k, j] * x[j]
        for k in range(len(axes)):
            for j in range(x.size):
                x[j] -= t[k] * axes[k, j]
        score[i] = np.sqrt((t * t / variance).sum())
        residual[i] = np.sqrt((x * x).sum())


def fit(patterns: NDArray[np.float32], group: NDArray[np.int64]) -> Novelty:
    """Fit the statistics to `patterns` and find their limits by leaving groups out.

    Parameters
    ----------
    patterns
        (n, n_points) float32, training patterns and replicas of them, free of empty bins.
    group
        (n,) int64, the pattern that each is a replica of (its own, for the pattern itself); a group
        is left out as a whole. At least two groups.
    """
    groups, group = np.unique(group, return_inverse=True)
    if len(groups) < 2:
        raise ModelError("novelty needs at least two different patterns")
    x = np.stack([reduce(p, min(POINTS, patterns.shape[1])) for p in patterns])
    fold = group % min(FOLDS, len(groups))
    left = []
    for left_out in range(int(fold.max()) + 1):
        inside = fold != left_out
        rest = Novelty(*_subspace(x[inside]), np.ones(2, np.float32))
        left.append(np.stack(rest.distances(patterns[~inside])))
    limits = np.quantile(np.concatenate(left, axis=1), QUANTILE, axis=1, method="higher")
    floor = np.array([FLOOR, FLOOR * np.sqrt(x.shape[1])])
    return Novelty(*_subspace(x), np.maximum(limits, floor).astype(np.float32))


def _subspace(x: Float64) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Mean (M,), principal axes (k, M) and variances (k,) of `x` (n, M)."""
    mean = x.mean(axis=0)
    centred = x - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(x) - 1, 1))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    total = max(float(values.sum()), FLOOR**2)
    enough = int((np.cumsum(values) < EXPLAINED * total).sum()) + 1
    k = min(enough, MAX_AXES, len(values))
    # A direction in which the training patterns hardly differ still has some width.
    variance = np.maximum(values[:k], FLOOR**2)
    axes = np.ascontiguousarray(vectors[:, :k].T)
    return mean.astype(np.float32), axes.astype(np.float32), variance.astype(np.float32)
