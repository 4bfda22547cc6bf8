"""Poisson counts for a whole frame, fast and repeatable.

Every pixel i has the mean weight_i * table[index_i]. Counts are drawn by inversion: u uniform,
the smallest k with sum_{j<=k} exp(-lambda) lambda^j / j! > u. A mean above 16 is drawn as a sum of
parts of at most 16, which is exact too.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53
_LARGE = 16.0


@njit(nogil=True, cache=True, inline="always")
def _uniform(state: np.uint64) -> float:  # splitmix64: Steele et al., OOPSLA 2014, fig. 16
    z = (state ^ (state >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    z = z ^ (z >> _S31)
    return (z >> _S11) * _UNIT


@njit(nogil=True, cache=True, inline="always")
def _invert(mean: float, u: float) -> int:
    if u < 1.0 - mean:  # exp(-m) >= 1 - m: most pixels are empty and need no exponential
        return 0
    p = np.exp(-mean)
    total = p
    k = 0
    while u > total and p > 0.0:
        k += 1
        p *= mean / k
        total += p
    return k


@njit(nogil=True, cache=True)
def _sample(
    index: Any, weight: Any, table: Any, key: Any, gap: int, ceiling: int, out: Any
) -> None:
    state = key
    for i in range(index.size):
        j = index[i]
        if j < 0:
            out[i] = gap
            continue
        mean = weight[i] * table[j]
        k = 0
        while mean > _LARGE and k < ceiling:
            state += _STEP
            k += _invert(_LARGE, _uniform(state))
            mean -= _LARGE
        state += _STEP
        k += _invert(mean, _uniform(state))
        out[i] = min(k, ceiling)


def sample(
    index: NDArray[np.int32],
    weight: NDArray[np.float32],
    table: NDArray[np.float32],
    *,
    seed: int,
    frame: int,
    gap: int,
    ceiling: int,
    dtype: str,
) -> NDArray[Any]:
    """Return the counts of frame `frame` of run `seed`, of the shape of `index`.

    They depend on nothing but the arguments: not on other frames, nor on the process.

    Parameters
    ----------
    index
        Any shape: where in `table` a pixel finds its mean; below 0: it gets `gap`.
    weight
        Same shape: relative sensitivity.
    table
        (n,) mean counts of a pixel of weight 1.
    ceiling
        Largest count.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(2, frame))
    out = np.empty(index.shape, dtype=dtype)
    key = sequence.generate_state(1, np.uint64)[0]
    _sample(index.ravel(), weight.ravel(), table, key, gap, ceiling, out.reshape(-1))
    return out
