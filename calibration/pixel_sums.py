"""Azimuthal integration as sums of raw counts in pixel order."""

from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.counts import last_valid
from phasewatch.calibration.plan import Sums, frozen
from phasewatch.calibration.shared_pixels import integrate_shared
from phasewatch.calibration.sums import EIGHT, ONE, Counts, Work
from phasewatch.calibration.whole_pixels import integrate_alone, integrate_eight

Array = NDArray[Any]
Patterns = NDArray[np.float32]

# From so many frames on eight are summed together, the last one filling them up.
TOGETHER = 3


class PixelSums:
    """Patterns of frames by the sums of a plan; counts of at least `saturation` are invalid."""

    def __init__(self, sums: Sums, saturation: float | None) -> None:
        self.plan, self.shares, self.saturation = sums.plan, sums.shares, saturation
        self._spare: dict[tuple[int, Any], list[Work]] = {}

    def __call__(self, frames: Array, patterns: Patterns, variances: Patterns | None = None) -> int:
        """Set `patterns` (n, n_bins), and `variances` if given; return a frame without, or -1."""
        if len(frames) == 0:
            return -1
        last = np.array(last_valid(frames.dtype, self.saturation))
        values = np.require(frames, requirements=["C", "A"]).reshape(-1)
        unsigned = np.dtype(f"u{frames.dtype.itemsize}")
        bits, last_bits = values.view(unsigned), last.view(unsigned)
        if frames.dtype.kind == "i":  # read as unsigned, a negative count is above every valid one
            values, last = bits, last_bits
        counts = Counts(frozen(values), frozen(bits), last[()], last_bits[()])
        kind, chunk = self._sum_of(unsigned if frames.dtype.kind in "iu" else frames.dtype)
        width = EIGHT if len(frames) >= TOGETHER else ONE
        spare = self._spare.setdefault((len(width), kind), [])
        try:  # new memory costs a 2M map as much as its sums
            work = spare.pop()
        except IndexError:
            work = Work.of(patterns.shape[1], len(width), kind)
        out = patterns, patterns[:0] if variances is None else variances
        if self.shares is None:
            integrate = integrate_alone if width is ONE else integrate_eight
            without = int(integrate(counts, self.plan, chunk, work, *out))
        else:
            squares = self.shares if variances is None else self._squares
            fixed = self.plan, self.shares, squares
            without = int(integrate_shared(counts, *fixed, work, *out, width))
        if without < 0:  # otherwise it is not cleared
            spare.append(work)
        return without

    @cached_property
    def _squares(self) -> Array:
        return frozen(np.square(cast(Array, self.shares)))

    def _sum_of(self, dtype: np.dtype[Any]) -> tuple[Any, int]:
        """Return the type of the sums of counts of `dtype`, and after how many pixels to widen."""
        n_pixels = max(self.plan.where.size, 1)
        if self.shares is not None or dtype.kind == "f":
            return np.float64, n_pixels
        if dtype.itemsize > 2:
            return np.uint64, n_pixels
        enough = np.iinfo(np.uint32).max // np.iinfo(dtype).max
        return np.uint32, n_pixels if self.plan.n_entries.max() <= enough else enough
