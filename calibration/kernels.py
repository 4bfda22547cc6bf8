"""The two loops that cost the time: summing a frame into bins, and one baseline.

Compiled by numba without fast-math, and one item per call: a result does not depend on what else
was computed with it.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@njit(nogil=True, cache=True)
def bin_sums(
    frame: NDArray[Any],
    bins: NDArray[Any],
    last: Any,
    total: NDArray[Any],
    norm: Float64,
    dark: Float64,
    lost_norm: Float64,
    lost_dark: Float64,
    lost_count: NDArray[np.int64],
) -> int:
    """Add the valid counts of one frame to their bins; return how many pixels were invalid.

    Parameters
    ----------
    frame
        Counts (n_pixels,), unsigned or float. Valid: ``0 <= x <= last``, which NaN is not.
    bins
        Bin of each pixel (n_pixels,); ``len(total) - 1`` for a pixel of none, which may hold
        anything.
    last
        Highest valid count, of the frame's type.
    total
        Sums (n_bins + 1,), uint64 or float64, to add to; the last is of no meaning.
    norm, dark
        Normalisation and dark of each pixel (n_pixels,), read only where a pixel is invalid.
    lost_norm, lost_dark, lost_count
        What the invalid pixels take from each bin (n_bins,), to add to.
    """
    nowhere = total.size - 1
    n_lost = 0
    for i in range(frame.size):
        x = frame[i]
        b = bins[i]
        if x >= 0 and x <= last:
            total[b] += x
        elif b != nowhere:
            lost_norm[b] += norm[i]
            lost_dark[b] += dark[i]
            lost_count[b] += 1
            n_lost += 1
    return n_lost


@njit(nogil=True, cache=True)
def asls_baseline(y: Float64, lam: float, p: float, n_iter: int) -> Float64:
    """Return the asymmetric least squares baseline of one pattern (n,), n >= 3, all finite.

    Solves ``(W + lam D'D) z = W y``, ``D`` the second difference, by ``L diag(d) L'`` with unit
    lower triangular ``L`` of two subdiagonals ``e`` and ``f``; `y`, `z` (n,).
    """
    n = y.size
    diagonal = np.zeros(n)
    first = np.zeros(n)  # first[i] = (D'D)[i, i + 1]; the second one is 1 everywhere
    for row in range(n - 2):
        diagonal[row] += lam
        diagonal[row + 1] += 4.0 * lam
        diagonal[row + 2] += lam
        first[row] -= 2.0 * lam
        first[row + 1] -= 2.0 * lam
    w = np.ones(n)
    z = np.empty(n)
    inverse = np.empty(n)
    e = np.zeros(n)
    f = np.zeros(n)
    u = np.empty(n)
    for _ in range(n_iter):
        # With d the pivots: g = d[i-1] e[i-1], h = d[i-2] f[i-2] = lam while row i-2 has one.
        g = 0.0
        for i in range(n):
            d = diagonal[i] + w[i]
            right = w[i] * y[i]
            off = first[i]
            if i > 0:
                d -= g * e[i - 1]
                off -= g * f[i - 1]
                right -= e[i - 1] * u[i - 1]
            if i > 1:
                d -= lam * f[i - 2]
                right -= f[i - 2] * u[i - 2]
            inverse[i] = 1.0 / d
            g = off
            e[i] = off * inverse[i]
            f[i] = lam * inverse[i] if i < n - 2 else 0.0
            u[i] = right
        changed = False
        for i in range(n - 1, -1, -1):
            value = u[i] * inverse[i]
            if i < n - 1:
                value -= e[i] * z[i + 1]
            if i < n - 2:
                value -= f[i] * z[i + 2]
            z[i] = value
            weight = p if y[i] > value else 1.0 - p
            changed |= weight != w[i]
            w[i] = weight
        if not changed:  # the next solution would be the same, to the bit
            break
    return z
