"""Sums of raw counts over the pixels of many frames, in pixel order: what integration costs.

Counts of a square of 8 pixels of 8 frames are turned in registers, so that one vector addition puts
a pixel of all frames where it belongs: the plan is read once for 8 frames, and the lanes never wait
for each other. Counts without splitting are added as integers, exactly. Floats, and counts that are
shared between bins, are added as float64 in pixel order, frame by frame the same, so that a pattern
has the same bits whatever batch it came in.

A pixel is valid where ``0 <= x <= last``. Read as unsigned integers, the bits of what is not, be it
a negative count or float or NaN, are above those of `last` (and those of -0.0, which is looked at
again): the largest of a square says whether it is to be added one by one.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.calibration.simd import (
    add_pixels,
    any_above,
    fill,
    fma,
    larger,
    load,
    prefetch,
    store,
    take_pixels,
)

Array = NDArray[Any]
Float64 = NDArray[np.float64]

# Per 2M frame and core, uint16: 0.3 to 0.4 ms with 8 lanes, 1.0 alone; 16 lanes do not fit the
# registers (0.4 to 0.7 ms). 4 lanes, 0.45 ms, are not worth the seconds that numba compiles them.
EIGHT, ONE = (0,) * 8, (0,)
SIXTEEN = (0,) * 16
GROUP = 8
UNIT = np.uint64(1)
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


@njit(nogil=True, cache=True)
def integrate(
    counts: Counts,
    plan: Plan,
    shares: Array | None,
    chunk: int,
    like: Any,
    patterns: NDArray[np.float32],
) -> int:
    """Set `patterns` (m, n_bins) to those of m frames; return a frame that has none, or -1.

    Parameters
    ----------
    counts, plan
        The frames and what they are summed by.
    shares
        (n_entries,) float32, or None without splitting: then each pixel has one entry, of 1.
    chunk
        How many pixels can be added before a sum of the type of `like` may be too large.
    like
        Zero, of the type of the sums: an unsigned integer, or float64.
    patterns
        Intensity, NaN in bins without a valid pixel.
    """
    m, n_bins = patterns.shape
    n_pixels = plan.where.size
    lanes = 8 if m >= 8 else 1
    table = np.full(2 * (n_bins + 1) * lanes, like)
    sums = np.empty((lanes, n_bins))
    lost, lost_count = np.zeros((lanes, 2, n_bins)), np.zeros((lanes, n_bins), np.int64)
    left = np.empty((2, n_bins))
    done = 0
    while done < m:
        together = lanes if m - done > 1 else 1
        first = min(done, m - together)  # some frames twice rather than one by one
        sums[:together] = 0.0
        for begin in range(0, n_pixels, chunk):
            end = min(begin + chunk, n_pixels)
            table[:] = like
            if shares is None:
                if together == 8:
                    _add(counts, first, begin, end, plan, table, lost, lost_count, EIGHT)
                else:
                    _add_alone(counts, first, begin, end, plan, table, lost, lost_count)
            elif together == 8:
                _share(counts, first, plan, shares, table, lost, lost_count, EIGHT)
            else:
                _share(counts, first, plan, shares, table, lost, lost_count, ONE)
            for b in range(n_bins):
                for lane in range(together):
                    sums[lane, b] += table[b * together + lane]
        for lane in range(together):
            left[:] = plan.weights - lost[lane]
            for b in range(n_bins):
                if lost_count[lane, b] > 0 and left[0, b] < SHARE_LEFT * plan.weights[0, b]:
                    _weigh(counts, first + lane, plan, shares, left)
                    break
            some = False
            for b in range(n_bins):
                # By count, not by norm: what is left when all pixels left is rounding.
                if lost_count[lane, b] < plan.n_entries[b] and left[0, b] > 0:
                    some = True
                    patterns[first + lane, b] = (sums[lane, b] - left[1, b]) / left[0, b]
                else:
                    patterns[first + lane, b] = np.nan
            if not some:
                return int(first + lane)
            lost[lane] = 0.0
            lost_count[lane] = 0
        done = first + together
    return -1


@njit(nogil=True)
def _add(
    counts: Counts,
    first: int,
    begin: int,
    end: int,
    plan: Plan,
    table: Array,
    lost: Float64,
    lost_count: Array,
    width: Any,
) -> None:
    """Add pixels of the frames from `first` on to `table` (n_bins + 1, lanes), without shares."""
    lanes, n_pixels = len(width), plan.where.size
    body = end - (end - begin) % lanes
    for i in range(begin, body, lanes):
        start = first * n_pixels + i
        highest = load(counts.bits, start, width)
        for lane in range(1, lanes):
            highest = larger(highest, load(counts.bits, start + lane * n_pixels, width))
        if any_above(highest, counts.last_bits, load(plan.where, i, width), plan.none):
            _add_checked(counts, first, i, i + lanes, plan, table, lost, lost_count, lanes)
        else:
            add_pixels(counts.values, start, n_pixels, plan.bins, i, table, width)
    _add_checked(counts, first, body, end, plan, table, lost, lost_count, lanes)


@njit(nogil=True)
def _add_alone(
    counts: Counts,
    frame: int,
    begin: int,
    end: int,
    plan: Plan,
    table: Array,
    lost: Float64,
    lost_count: Array,
) -> None:
    """Add pixels of one frame to `table` (n_bins + 1,)."""
    n_bins = lost.shape[2]
    # Integers take turns in two tables: neighbours in one bin then do not wait for each other.
    second = np.uint64(0 if isinstance(table[0], float) else n_bins + 1)
    body = end - (end - begin) % 16
    for i in range(begin, body, 16):
        start = frame * plan.where.size + i
        prefetch(counts.values, start + AHEAD)
        prefetch(plan.bins, i + AHEAD)
        pixel, value = np.uint64(i), np.uint64(start)  # numba looks whether others are negative
        highest = load(counts.bits, start, SIXTEEN)
        if any_above(highest, counts.last_bits, load(plan.where, i, SIXTEEN), plan.none):
            _add_checked(counts, frame, i, i + 16, plan, table, lost, lost_count, 1)
        else:
            for _ in range(8):
                table[np.uint64(plan.bins[pixel])] += counts.values[value]
                pixel, value = pixel + UNIT, value + UNIT
                table[np.uint64(plan.bins[pixel]) + second] += counts.values[value]
                pixel, value = pixel + UNIT, value + UNIT
    _add_checked(counts, frame, body, end, plan, table, lost, lost_count, 1)
    if second > 0:
        for b in range(n_bins):
            table[b] += table[np.uint64(b) + second]


@njit(nogil=True)
def _add_checked(
    counts: Counts,
    first: int,
    begin: int,
    end: int,
    plan: Plan,
    table: Array,
    lost: Float64,
    lost_count: Array,
    lanes: int,
) -> None:
    """Add pixel by pixel those that are valid, and say what the others take from the weights."""
    for i in range(begin, end):
        b = plan.bins[i]
        for lane in range(lanes):
            x = counts.values[(first + lane) * plan.where.size + i]
            if x >= 0 and x <= counts.last:
                table[np.intp(b) * lanes + lane] += x
            elif b != plan.none:
                lost[lane, 0, b] += plan.norm[i]
                lost[lane, 1, b] += plan.dark[i]
                lost_count[lane, b] += 1


@njit(nogil=True)
def _share(
    counts: Counts,
    first: int,
    plan: Plan,
    shares: Array,
    table: Float64,
    lost: Float64,
    lost_count: Array,
    width: Any,
) -> None:
    """Add all pixels of the frames from `first` on to `table` (2, n_bins + 1, lanes), by shares."""
    lanes, n_pixels, n_bins = len(width), plan.where.size, lost.shape[2]
    square = np.empty(GROUP * lanes)
    second = (n_bins + 1) * lanes
    entry = np.uint64(0)  # numba looks whether a signed index is negative
    for group in range(plan.entries.size):
        each = np.intp(plan.entries[group])
        i = group * GROUP
        if each == 0:
            continue
        start = first * n_pixels + i
        for k in range(0, GROUP * each, 16):  # a cache line of shares
            prefetch(shares, np.intp(entry) + k + AHEAD)
            prefetch(plan.bins, np.intp(entry) + k + AHEAD)
        careful = i + GROUP > n_pixels
        if not careful:
            highest = load(counts.bits, start, EIGHT)
            for lane in range(1, lanes):
                highest = larger(highest, load(counts.bits, start + lane * n_pixels, EIGHT))
            careful = any_above(highest, counts.last_bits, load(plan.where, i, EIGHT), plan.none)
        if careful:
            end = min(i + GROUP, n_pixels)
            _share_checked(
                counts, first, i, end, plan, shares, entry, table, lost, lost_count, width
            )
            entry += np.uint64(GROUP * each)
            continue
        for k in range(0, GROUP, lanes):
            take_pixels(counts.values, start + k, n_pixels, square, k * lanes, width)
        for k in range(GROUP):
            x = load(square, k * lanes, width)
            for _ in range(each):
                at = np.intp(plan.bins[entry]) * lanes + (k & 1) * second
                share = fill(np.float64(shares[entry]), width)
                store(table, at, fma(share, x, load(table, at, width)))
                entry += UNIT
    for at in range(0, second, lanes):
        store(table, at, load(table, at, width) + load(table, at + second, width))


@njit(nogil=True)
def _share_checked(
    counts: Counts,
    first: int,
    begin: int,
    end: int,
    plan: Plan,
    shares: Array,
    entry: Any,
    table: Float64,
    lost: Float64,
    lost_count: Array,
    width: Any,
) -> None:
    """Add pixels of one group, whose entries begin at `entry`: the valid ones."""
    lanes, second = len(width), (lost.shape[2] + 1) * len(width)
    each = np.uint64(plan.entries[begin // GROUP])
    for i in range(begin, end):
        for lane in range(lanes):
            x = counts.values[(first + lane) * plan.where.size + i]
            valid = x >= 0 and x <= counts.last
            for j in range(entry, entry + each):
                b, share = np.intp(plan.bins[j]), np.float64(shares[j])
                if valid:
                    at = b * lanes + lane + ((i - begin) & 1) * second
                    total = fma(fill(share, ONE), fill(np.float64(x), ONE), load(table, at, ONE))
                    store(table, at, total)
                elif share != 0:
                    lost[lane, 0, b] += share * plan.norm[i]
                    lost[lane, 1, b] += share * plan.dark[i]
                    lost_count[lane, b] += 1
        entry += each


@njit(nogil=True)
def _weigh(counts: Counts, frame: int, plan: Plan, shares: Array | None, left: Float64) -> None:
    """Set `left` (2, n_bins) to the weights of the valid pixels of one frame."""
    left[:] = 0.0
    entry = np.intp(0)
    for i in range(plan.where.size):
        x = counts.values[frame * plan.where.size + i]
        valid = x >= 0 and x <= counts.last
        if shares is None:
            if valid and plan.bins[i] != plan.none:
                left[0, plan.bins[i]] += plan.norm[i]
                left[1, plan.bins[i]] += plan.dark[i]
        else:
            each = np.intp(plan.entries[i // GROUP])
            for j in range(entry, entry + each):
                if valid:
                    left[0, plan.bins[j]] += np.float64(shares[j]) * plan.norm[i]
                    left[1, plan.bins[j]] += np.float64(shares[j]) * plan.dark[i]
            entry += each
