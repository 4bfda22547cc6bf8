"""Azimuthal integration without splitting, as sums of raw counts in pixel order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.counts import last_valid
from phasewatch.calibration.kernels import bin_sums
from phasewatch.calibration.reference import Reference

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class PixelSums:
    """The sums of `reference` for splitting "no", with all that no frame changes made once."""

    def __init__(self, reference: Reference) -> None:
        calibration, n_bins = reference.calibration, len(reference.axis)
        bins = reference.bin_of_pixel()
        norm = np.asarray(reference.ai.solidAngleArray(reference.shape), np.float64).ravel()
        if calibration.polarization is not None:
            factor = calibration.polarization
            norm = norm * reference.ai.polarization(reference.shape, factor).ravel()
        if calibration.flat is not None:
            norm = norm * calibration.flat.ravel()
        dark = np.zeros(norm.size) if calibration.dark is None else calibration.dark.ravel()

        def total(weights: Float64 | None) -> Array:
            return np.bincount(bins, weights, minlength=n_bins + 1)[:n_bins]

        self.sum_norm, self.sum_dark, self.count = total(norm), total(dark), total(None)
        self.norm, self.dark = _frozen(norm), _frozen(dark)
        # Half the bytes to read per pixel where 16 bits hold the bin: the loop is memory bound.
        self.bins = _frozen(bins.astype(np.uint16 if n_bins < 1 << 16 else np.uint32))
        self.n_valid = int(self.count.sum())
        self.saturation = calibration.saturation

    def __call__(self, frame: Array) -> Array | None:
        """Return the pattern (n_bins,) of one frame; None if all its pixels are invalid."""
        n_bins = len(self.count)
        last = last_valid(frame.dtype, self.saturation)
        if frame.dtype.kind == "i":  # read as unsigned, a negative count is above every valid one
            unsigned = np.dtype(f"u{frame.dtype.itemsize}")
            frame, last = frame.view(unsigned), unsigned.type(last)
        total = np.zeros(n_bins + 1, np.float64 if frame.dtype.kind == "f" else np.uint64)
        lost_norm, lost_dark = np.zeros(n_bins), np.zeros(n_bins)
        lost_count = np.zeros(n_bins, np.int64)
        n_lost = bin_sums(
            _frozen(np.require(frame, requirements=["C", "A"]).reshape(-1)),
            *(self.bins, last, total, self.norm, self.dark, lost_norm, lost_dark, lost_count),
        )
        if n_lost == self.n_valid:
            return None
        signal = total[:n_bins] - (self.sum_dark - lost_dark)
        # By count, not by norm: what is left of a norm after all its pixels left is rounding.
        norm = self.sum_norm - lost_norm
        norm[(self.count == lost_count) | (norm <= 0)] = np.nan
        intensity: Array = signal / norm
        return intensity


def _frozen(array: Array) -> Array:
    """Return a read-only view: one compilation then serves frames that are so and that are not."""
    view = array.view()
    view.setflags(write=False)
    return view
