"""What the sums over pixels of many frames have in common, whole or shared between bins.

The raw counts are summed in pixel order, those of eight frames together. Counts of a square of 8
pixels of 8 frames are turned in registers, so that one vector addition puts a pixel of all frames
where it belongs: the plan is read once for 8 frames, and the lanes never wait for each other. A
pattern has the same bits whatever batch it came in.

A pixel is valid where ``0 <= x <= last``. Read as unsigned integers, the bits of what is not, be it
a negative count or float or NaN, are above those of `last` (and those of -0.0, which is looked at
again): the largest of a square says whether it is to be added one by one.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
Float64 = NDArray[np.float64]

# Per 2M frame and core, uint16: 0.3 to 0.4 ms with 8 lanes, 1.0 alone; 16 lanes do not fit the
# registers (0.4 to 0.7 ms).
GROUP = 8  # pixels
EIGHT, ONE = (0,) * 8, (0,)
AHEAD = 1024  # elements; one frame that is in no cache takes 1.5 ms with it and 2.5 without

# Below this share of a sum, what is left of it after pixels were taken away is summed anew.
SHARE_LEFT = 1e-4


class Counts(NamedTuple):
    """Frames one after the other, and what is valid in them.

    Attributes
    ----------
    values
        (n_frames * n_pixels,) unsigned or float.
    bits
        The same memory as unsigned integers.
    last, last_bits
        Highest valid count, of these two types.
    """

    values: Array
    bits: Array
    last: Any
    last_bits: Any


class Plan(NamedTuple):
    """What no frame changes. Pixels have entries; an entry is a share of a pixel in a bin.

    Attributes
    ----------
    bins
        Bin of each entry, entries in the order of the pixels; unsigned.
    entries
        How many entries each pixel has in each group of 8 pixels, unsigned; without splitting a
        pixel has one. Pixels that need fewer have some with share 0, because a loop whose length
        changes from pixel to pixel is mispredicted.
    where
        (n_pixels,) number of entries with a share; without splitting `bins` itself.
    none
        The value of `where`, of its type, for a pixel of no bin: 0, or the number of bins.
    norm, dark
        Normalisation and dark of each pixel (n_pixels,).
    weights
        (2, n_bins) sums of share x norm and of share x dark.
    n_entries
        (n_bins,) number of entries with a share in each bin.
    """

    bins: Array
    entries: Array
    where: Array
    none: Any
    norm: Float64
    dark: Float64
    weights: Float64
    n_entries: NDArray[np.int64]


class Lost(NamedTuple):
    """What pixels that are invalid in one frame take away; lanes are frames summed together.

    Attributes
    ----------
    weights
        (lanes, 2, n_bins) what they take from the weights.
    entries, total
        (lanes, n_bins) how many they have, and (lanes,) in all bins.
    left
        (2, n_bins) weights of one frame that has lost some.
    """

    weights: Float64
    entries: NDArray[np.int64]
    total: NDArray[np.int64]
    left: Float64


class Work(NamedTuple):
    """What frames are summed in; all zero between two calls.

    Attributes
    ----------
    table
        (2 * (n_bins + 1) * lanes,) sums while they are made, lanes together.
    sums
        (2, lanes, n_bins) sums of counts by shares, and by squares of shares.
    lost
        What is invalid in these frames.
    """

    table: Array
    sums: Float64
    lost: Lost

    @classmethod
    def of(cls, n_bins: int, lanes: int, kind: Any) -> "Work":
        """Return a new one whose table is of the type `kind`."""
        lost = Lost(
            np.zeros((lanes, 2, n_bins)),
            np.zeros((lanes, n_bins), np.int64),
            np.zeros(lanes, np.int64),
            np.zeros((2, n_bins)),
        )
        table = np.zeros(2 * (n_bins + 1) * lanes, kind)
        return cls(table, np.zeros((2, lanes, n_bins)), lost)


# Loops, not slices: numba compiles a second longer where arrays are assigned to.
@njit(nogil=True)
def collect(table: Array, sums: Float64, last: int) -> None:
    """Add `table` to `sums` (lanes, n_bins), up to the lane `last`, and clear it."""
    lanes, n_bins = sums.shape
    for b in range(n_bins):
        for lane in range(last + 1):
            sums[lane, b] += table[b * lanes + lane]
    for k in range(table.size):
        table[k] = 0


@njit(nogil=True)
def lose(lost: Lost, lane: int, b: Any, norm: float, dark: float) -> None:
    """Take an entry out of the weights of bin `b`."""
    lost.weights[lane, 0, b] += norm
    lost.weights[lane, 1, b] += dark
    lost.entries[lane, b] += 1
    lost.total[lane] += 1


@njit(nogil=True)
def forget(lost: Lost, lane: int) -> None:
    """Clear what was lost in a lane."""
    if lost.total[lane] > 0:
        for b in range(lost.left.shape[1]):
            lost.weights[lane, 0, b] = lost.weights[lane, 1, b] = 0.0
            lost.entries[lane, b] = 0
        lost.total[lane] = 0


@njit(nogil=True)
def weigh(plan: Plan, lost: Lost, lane: int) -> bool:
    """Set what is left in a lane that lost some; return whether it is too little of a bin."""
    little, left = False, lost.left
    if lost.total[lane] > 0:
        for b in range(left.shape[1]):
            left[0, b] = plan.weights[0, b] - lost.weights[lane, 0, b]
            left[1, b] = plan.weights[1, b] - lost.weights[lane, 1, b]
            little |= lost.entries[lane, b] > 0 and left[0, b] < SHARE_LEFT * plan.weights[0, b]
    return little


@njit(nogil=True, error_model="numpy")
def finish(
    plan: Plan,
    lost: Lost,
    lane: int,
    sums: Float64,
    squares: Float64,
    frame: int,
    patterns: NDArray[np.float32],
    variances: NDArray[np.float32],
) -> bool:
    """Set the pattern of a frame, and its variance if there is room; return whether it has any bin.

    `sums` and `squares` (lanes, n_bins) are those of counts by shares and by squares of shares;
    those of the lane are cleared, and what it has lost is forgotten.
    """
    some, asked, whole = False, variances.size > 0, lost.total[lane] == 0
    for b in range(sums.shape[1]):
        norm = plan.weights[0, b] if whole else lost.left[0, b]
        dark = plan.weights[1, b] if whole else lost.left[1, b]
        # By count, not by norm: what is left when all pixels left is rounding.
        n_entries = plan.n_entries[b] - (0 if whole else lost.entries[lane, b])
        if n_entries > 0 and norm > 0:
            some = True
            patterns[frame, b] = (sums[lane, b] - dark) / norm
            if asked:
                variances[frame, b] = squares[lane, b] / (norm * norm)
        else:
            patterns[frame, b] = np.nan
            if asked:
                variances[frame, b] = np.nan
        sums[lane, b] = 0.0
        if asked:
            squares[lane, b] = 0.0
    forget(lost, lane)
    return some
