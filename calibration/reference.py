"""Azimuthal integration by plain pyFAI: the reference, and where axis and bins come from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.counts import last_valid
from phasewatch.calibration.errors import CalibrationError

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Reference:
    """pyFAI's sparse engine for one calibration and axis.

    Attributes
    ----------
    axis
        (n_bins,) float64, bin centres.
    valid
        (n_bins,) bool, bins that have pixels.

    Raises
    ------
    CalibrationError
        The geometry and range give no axis, or no valid pixel on it.
    """

    def __init__(
        self,
        calibration: Calibration,
        n_bins: int,
        unit: str,
        split: str,
        limits: tuple[float, float] | None,
    ) -> None:
        if calibration.shape is None or calibration.mask is None:
            raise CalibrationError("shape: the detector's is unknown: give it, or a mask")
        self.calibration, self.shape, self.mask = calibration, calibration.shape, calibration.mask
        self.ai = _azimuthal_integrator(calibration)
        self.options = {
            "npt": n_bins,
            "unit": unit,
            "radial_range": limits,
            "mask": self.mask.copy(),  # pyFAI takes no read-only arrays
            "polarization_factor": calibration.polarization,
            "dark": _single(calibration.dark),
            "flat": _single(calibration.flat),
            "method": (split, "csr", "cython"),
        }
        blank = self.ai.integrate1d(np.zeros(self.shape, np.float32), **self.options)
        self.axis: Float64 = np.array(blank.radial, np.float64)
        self.valid: NDArray[np.bool_] = np.asarray(blank.count) > 0
        self.axis.setflags(write=False)
        self.valid.setflags(write=False)
        increasing = np.isfinite(self.axis).all() and (np.diff(self.axis) > 0).all()
        if not increasing or (limits is None and not self.valid.any()):
            raise CalibrationError(f"axis: the geometry gives no increasing, finite axis in {unit}")
        if not self.valid.any():
            centres = self.ai.center_array(self.shape, unit=unit)[~self.mask]
            low, high = centres.min(), centres.max()
            raise CalibrationError(
                f"range: no valid pixel is in {limits} {unit}, they are in ({low:.6g}, {high:.6g})"
            )

    def __call__(self, frame: Array) -> Array | None:
        """Return the pattern (n_bins,) of one frame; None if all its pixels are invalid."""
        # NaN leaves pyFAI's sums as a masked pixel does, without a new plan for a new mask.
        invalid = ~((frame >= 0) & (frame <= last_valid(frame.dtype, self.calibration.saturation)))
        image = frame.astype(np.float32)
        image[invalid] = np.nan
        result = self.ai.integrate1d(image, **self.options)
        # Not by ai.empty = NaN: pyFAI 2026.9 then takes every pixel of a flat field as invalid.
        filled = result.count > 0
        return np.where(filled, result.intensity, np.nan) if filled.any() else None

    def bin_of_pixel(self) -> NDArray[np.int64]:
        """Return pyFAI's bin of each pixel (n_pixels,), n_bins for a pixel of none."""
        (engine,) = (e.engine for m, e in self.ai.engines.items() if m.algo_lower == "csr")
        _, pixels, starts = engine.lut
        bins = np.full(engine.size, engine.bins, np.int64)
        bins[pixels] = np.repeat(np.arange(engine.bins), np.diff(starts))
        return bins


def _single(image: Float64 | None) -> NDArray[np.float32] | None:
    return None if image is None else image.astype(np.float32)


def _azimuthal_integrator(calibration: Calibration) -> Any:
    poni = calibration.poni
    detector = poni.make_detector()
    if type(detector) is Detector or detector.shape is None:
        detector.max_shape = detector.shape = calibration.shape
    return AzimuthalIntegrator(
        dist=poni.distance,
        poni1=poni.poni1,
        poni2=poni.poni2,
        rot1=poni.rot1,
        rot2=poni.rot2,
        rot3=poni.rot3,
        detector=detector,
        wavelength=calibration.wavelength,
    )
