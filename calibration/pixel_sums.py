"""Azimuthal integration as sums of raw counts in pixel order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.counts import last_valid
from phasewatch.calibration.plan import Sums, frozen
from phasewatch.calibration.sum_kernels import Counts, integrate

Array = NDArray[Any]
Patterns = NDArray[np.float32]


class PixelSums:
    """Patterns of frames by the sums of a plan; counts of at least `saturation` are invalid."""

    def __init__(self, sums: Sums, saturation: float | None) -> None:
        self.plan, self.shares, self.saturation = sums.plan, sums.shares, saturation

    def __call__(self, frames: Array, patterns: Patterns) -> int:
        """Set `patterns` (n, n_bins) to those of `frames`; return one that has none, or -1."""
        last = np.array(last_valid(frames.dtype, self.saturation))
        values = np.require(frames, requirements=["C", "A"]).reshape(-1)
        unsigned = np.dtype(f"u{frames.dtype.itemsize}")
        bits, last_bits = values.view(unsigned), last.view(unsigned)
        if frames.dtype.kind == "i":  # read as unsigned, a negative count is above every valid one
            values, last = bits, last_bits
        counts = Counts(frozen(values), frozen(bits), last[()], last_bits[()])
        kind, chunk = self._sum_of(unsigned if frames.dtype.kind in "iu" else frames.dtype)
        return int(integrate(counts, self.plan, self.shares, chunk, kind(0), patterns))

    def _sum_of(self, dtype: np.dtype[Any]) -> tuple[Any, int]:
        """Return the type of the sums of counts of `dtype`, and after how many pixels to widen."""
        n_pixels = max(self.plan.where.size, 1)
        if self.shares is not None or dtype.kind == "f":
            return np.float64, n_pixels
        if dtype.itemsize > 2:
            return np.uint64, n_pixels
        enough = np.iinfo(np.uint32).max // np.iinfo(dtype).max
        return np.uint32, n_pixels if self.plan.n_entries.max() <= enough else enough
