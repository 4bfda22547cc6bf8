"""Sums of frames whose pixels each belong to one bin: integration without splitting.

Integers are added as integers, exactly; floats as float64 in pixel order.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.calibration.simd import add_pixels, any_above, larger, load, prefetch
from phasewatch.calibration.sums import (
    AHEAD,
    EIGHT,
    Counts,
    Float64,
    Plan,
    Work,
    collect,
    finish,
    lose,
    weigh,
)

Patterns = NDArray[np.float32]

SIXTEEN = (0,) * 16
UNIT = np.uint64(1)


@njit(nogil=True, cache=True)
def integrate_eight(
    counts: Counts, plan: Plan, chunk: int, work: Work, patterns: Patterns, variances: Patterns
) -> int:
    """Set `patterns` (m, n_bins) to those of m frames; return a frame that has none, or -1.

    Parameters
    ----------
    counts, plan
        The frames and what they are summed by.
    chunk
        How many pixels can be added before a sum of the type of the table may be too large.
    work
        Of 8 lanes; its table of unsigned integers, or float64.
    patterns
        Intensity, NaN in bins without a valid pixel.
    variances
        (m, n_bins) their variance for Poisson counts, or (0, n_bins) if it is not asked for.
    """
    m, n_pixels = len(patterns), plan.where.size
    first: Any = np.intp(0)  # a plain 0 is compiled as a type of its own, too
    last = min(7, m - 1)
    while True:
        for begin in range(0, n_pixels, chunk):
            _add(counts, first, last, begin, min(begin + chunk, n_pixels), plan, work)
            collect(work.table, work.sums[0], last)
        for lane in range(last + 1):
            if not _finish(counts, first + lane, lane, plan, work, patterns, variances):
                return int(first + lane)
        if first + 8 >= m:
            return -1
        first = min(first + 8, m - 8)  # some frames twice rather than one by one


@njit(nogil=True, cache=True)
def integrate_alone(
    counts: Counts, plan: Plan, chunk: int, work: Work, patterns: Patterns, variances: Patterns
) -> int:
    """Do the same frame by frame, with `work` of one lane: for fewer than three it takes less."""
    n_pixels = plan.where.size
    for frame in range(len(patterns)):
        for begin in range(0, n_pixels, chunk):
            _add_alone(counts, frame, begin, min(begin + chunk, n_pixels), plan, work)
            collect(work.table, work.sums[0], 0)
        if not _finish(counts, frame, 0, plan, work, patterns, variances):
            return frame
    return -1


@njit(nogil=True)
def _add(
    counts: Counts, first: int, last: int, begin: int, end: int, plan: Plan, work: Work
) -> None:
    """Add pixels of the frames from `first` on, of which there are ``last + 1``, to the table."""
    lanes, n_pixels = len(EIGHT), plan.where.size
    body = end - (end - begin) % lanes
    for i in range(begin, body, lanes):
        start = first * n_pixels + i
        highest = load(counts.bits, start, EIGHT)
        for lane in range(1, lanes):
            at = start + min(lane, last) * n_pixels
            highest = larger(highest, load(counts.bits, at, EIGHT))
        if any_above(highest, counts.last_bits, load(plan.where, i, EIGHT), plan.none):
            _add_checked(counts, first, last, i, i + lanes, plan, work, lanes)
        else:
            add_pixels(counts.values, start, n_pixels, last, plan.bins, i, work.table, EIGHT)
    _add_checked(counts, first, last, body, end, plan, work, lanes)


@njit(nogil=True)
def _add_alone(counts: Counts, frame: int, begin: int, end: int, plan: Plan, work: Work) -> None:
    """Add pixels of one frame to the table."""
    table, n_bins = work.table, work.sums.shape[2]
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
            _add_checked(counts, frame, 0, i, i + 16, plan, work, 1)
        else:
            for _ in range(8):
                table[np.uint64(plan.bins[pixel])] += counts.values[value]
                pixel, value = pixel + UNIT, value + UNIT
                table[np.uint64(plan.bins[pixel]) + second] += counts.values[value]
                pixel, value = pixel + UNIT, value + UNIT
    _add_checked(counts, frame, 0, body, end, plan, work, 1)
    if second > 0:
        for b in range(n_bins):
            table[b] += table[np.uint64(b) + second]


@njit(nogil=True)
def _add_checked(
    counts: Counts,
    first: int,
    last: int,
    begin: int,
    end: int,
    plan: Plan,
    work: Work,
    lanes: int,
) -> None:
    """Add pixel by pixel those that are valid, and say what the others take from the weights."""
    for i in range(begin, end):
        b = plan.bins[i]
        for lane in range(last + 1):
            x = counts.values[(first + lane) * plan.where.size + i]
            if x >= 0 and x <= counts.last:
                work.table[np.intp(b) * lanes + lane] += x
            elif b != plan.none:
                lose(work.lost, lane, b, plan.norm[i], plan.dark[i])


@njit(nogil=True)
def _finish(
    counts: Counts,
    frame: int,
    lane: int,
    plan: Plan,
    work: Work,
    patterns: Patterns,
    variances: Patterns,
) -> bool:
    """Set the pattern of the frame in a lane and clear the lane; return whether it has any bin."""
    if weigh(plan, work.lost, lane):
        _weigh_anew(counts, frame, plan, work.lost.left)
    sums = work.sums[0]
    return finish(plan, work.lost, lane, sums, sums, frame, patterns, variances)


@njit(nogil=True)
def _weigh_anew(counts: Counts, frame: int, plan: Plan, left: Float64) -> None:
    """Set `left` (2, n_bins) to the weights of the valid pixels of one frame."""
    for b in range(left.shape[1]):
        left[0, b] = left[1, b] = 0.0
    for i in range(plan.where.size):
        x = counts.values[frame * plan.where.size + i]
        b = plan.bins[i]
        if x >= 0 and x <= counts.last and b != plan.none:
            left[0, b] += plan.norm[i]
            left[1, b] += plan.dark[i]
