"""Sums of frames whose pixels are shared between bins: integration with splitting.

Counts by shares are added as float64, in pixel order in two tables that take turns.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.calibration.simd import (
    any_above,
    fill,
    fma,
    larger,
    load,
    prefetch,
    store,
    take_pixels,
)
from phasewatch.calibration.sums import (
    AHEAD,
    EIGHT,
    GROUP,
    ONE,
    Array,
    Counts,
    Float64,
    Plan,
    Work,
    collect,
    finish,
    forget,
    lose,
    weigh,
)

Patterns = NDArray[np.float32]

UNIT = np.uint64(1)


@njit(nogil=True, cache=True)
def integrate_shared(
    counts: Counts,
    plan: Plan,
    shares: Array,
    squares: Array,
    work: Work,
    patterns: Patterns,
    variances: Patterns,
    width: Any,
) -> int:
    """Set `patterns` (m, n_bins) to those of m frames; return a frame that has none, or -1.

    Parameters
    ----------
    counts, plan
        The frames and what they are summed by.
    shares, squares
        (n_entries,) float32, and their squares, which are not read if no variance is asked for.
    work
        Of as many lanes as `width` is long, its table float64.
    patterns
        Intensity, NaN in bins without a valid pixel.
    variances
        (m, n_bins) their variance for Poisson counts, or (0, n_bins) if it is not asked for.
    width
        `EIGHT` frames at a time, or `ONE`.
    """
    m, lanes = len(patterns), len(width)
    first: Any = np.intp(0)  # a plain 0 is compiled as a type of its own, too
    last = min(lanes, m) - 1
    while True:
        for power in range(1 if variances.size > 0 else 0, -1, -1):
            coefficients = shares if power == 0 else squares
            for lane in range(lanes):  # what the squares lost is what the shares will lose
                forget(work.lost, lane)
            _share(counts, first, last, plan, coefficients, work, width)
            collect(work.table, work.sums[power], last)
        for lane in range(last + 1):
            frame = first + lane
            if weigh(plan, work.lost, lane):
                _weigh_anew(counts, frame, plan, shares, work.lost.left)
            sums, squared = work.sums[0], work.sums[1]
            if not finish(plan, work.lost, lane, sums, squared, frame, patterns, variances):
                return int(frame)
        if first + lanes >= m:
            return -1
        first = min(first + lanes, m - lanes)  # some frames twice rather than one by one


@njit(nogil=True)
def _share(
    counts: Counts, first: int, last: int, plan: Plan, shares: Array, work: Work, width: Any
) -> None:
    """Add the frames from `first` on, of which there are ``last + 1``, to the table by shares."""
    table, lanes, n_pixels = work.table, len(width), plan.where.size
    square = np.empty(GROUP * lanes)
    second = (work.sums.shape[2] + 1) * lanes
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
                at = start + min(lane, last) * n_pixels
                highest = larger(highest, load(counts.bits, at, EIGHT))
            careful = any_above(highest, counts.last_bits, load(plan.where, i, EIGHT), plan.none)
        if careful:
            end = min(i + GROUP, n_pixels)
            _share_checked(counts, first, last, i, end, plan, shares, entry, work, width)
            entry += np.uint64(GROUP * each)
            continue
        for k in range(0, GROUP, lanes):
            take_pixels(counts.values, start + k, n_pixels, last, square, k * lanes, width)
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
    last: int,
    begin: int,
    end: int,
    plan: Plan,
    shares: Array,
    entry: Any,
    work: Work,
    width: Any,
) -> None:
    """Add pixels of one group, whose entries begin at `entry`: the valid ones."""
    lanes, second = len(width), (work.sums.shape[2] + 1) * len(width)
    each = np.uint64(plan.entries[begin // GROUP])
    for i in range(begin, end):
        for lane in range(last + 1):
            x = counts.values[(first + lane) * plan.where.size + i]
            valid = x >= 0 and x <= counts.last
            for j in range(entry, entry + each):
                b, share = np.intp(plan.bins[j]), np.float64(shares[j])
                if valid:
                    at = b * lanes + lane + ((i - begin) & 1) * second
                    here = load(work.table, at, ONE)
                    store(work.table, at, fma(fill(share, ONE), fill(np.float64(x), ONE), here))
                elif share != 0:
                    lose(work.lost, lane, b, share * plan.norm[i], share * plan.dark[i])
        entry += each


@njit(nogil=True)
def _weigh_anew(counts: Counts, frame: int, plan: Plan, shares: Array, left: Float64) -> None:
    """Set `left` (2, n_bins) to the weights of the valid pixels of one frame."""
    for b in range(left.shape[1]):
        left[0, b] = left[1, b] = 0.0
    entry = np.intp(0)
    for i in range(plan.where.size):
        x = counts.values[frame * plan.where.size + i]
        valid = x >= 0 and x <= counts.last
        each = np.intp(plan.entries[i // GROUP])
        if valid:
            for j in range(entry, entry + each):
                left[0, plan.bins[j]] += np.float64(shares[j]) * plan.norm[i]
                left[1, plan.bins[j]] += np.float64(shares[j]) * plan.dark[i]
        entry += each
