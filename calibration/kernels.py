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
