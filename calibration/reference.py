"""Azimuthal integration by plain pyFAI: the reference, and where axis and bins come from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from phasewatch.calibration.calibration import Calibration, Shape, known_shape
from phasewatch.calibration.counts import last_valid
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.plan import Entries, Sums, make_sums

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Patterns = NDArray[np.float32]


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
        self.calibration, self.shape = calibration, known_shape(calibration)
        self.mask = np.array(calibration.mask)  # pyFAI takes no read-only arrays
        self.ai = azimuthal_integrator(calibration)
        self.options = {
            "npt": n_bins,
            "unit": unit,
            "radial_range": limits,
            "mask": self.mask,
            "polarization_factor": calibration.polarization,
            "dark": single(calibration.dark),
            "flat": single(calibration.flat),
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

    def __call__(self, frames: Array, patterns: Patterns, variances: Patterns | None = None) -> int:
        """Set `patterns` (n, n_bins), and `variances` if given; return a frame without, or -1."""
        for index, (frame, pattern) in enumerate(zip(frames, patterns, strict=True)):
            # NaN leaves pyFAI's sums as a masked pixel does, without a new plan for a new mask.
            last = last_valid(frame.dtype, self.calibration.saturation)
            image = frame.astype(np.float32)
            image[~((frame >= 0) & (frame <= last))] = np.nan
            counted = None if variances is None else image.copy()  # not pyFAI's max(counts, 1)
            result = self.ai.integrate1d(image, variance=counted, **self.options)
            # Not by ai.empty = NaN: pyFAI 2026.9 then takes all pixels of a flat field as invalid.
            pattern[:] = np.where(result.count > 0, result.intensity, np.nan)
            if variances is not None:
                variances[index] = np.where(result.count > 0, np.square(result.sem), np.nan)
            if not (result.count > 0).any():
                return index
        return -1

    def sums(self) -> Sums:
        """Return the same sums for our own kernels."""
        norm, dark = pixel_weights(self.ai, self.calibration, self.shape)
        return make_sums(entries_of(self.ai), norm, dark, len(self.axis))


def entries_of(ai: Any) -> Entries:
    """Return the entries of the plan that `ai` has made for its sparse engine.

    In a map with full splitting pyFAI 2026.9 gives a pixel at 180 degrees that touches no more than
    a corner of a cell infinite shares (one pixel of a LAMBDA 2M): such a pixel has no entry here.
    """
    ((method, engine),) = ((m, e.engine) for m, e in ai.engines.items() if m.algo_lower == "csr")
    shares, pixels, starts = engine.lut
    bins = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    finite = np.isfinite(shares)
    if not finite.all():
        kept = ~np.isin(pixels, pixels[~finite])
        shares, pixels, bins = shares[kept], pixels[kept], bins[kept]
    order = np.argsort(pixels, kind="stable")
    alone = method.split_lower == "no"
    return Entries(pixels[order].astype(np.int64), bins[order], None if alone else shares[order])


def pixel_weights(ai: Any, calibration: Calibration, shape: Shape) -> tuple[Float64, Float64]:
    """Return normalisation and dark of each pixel (n_pixels,)."""
    norm = np.array(ai.solidAngleArray(shape), np.float64).ravel()
    if calibration.polarization is not None:
        norm *= ai.polarization(shape, calibration.polarization).ravel()
    if calibration.flat is not None:
        norm *= calibration.flat.ravel()
    dark = np.zeros(norm.size) if calibration.dark is None else calibration.dark.ravel()
    return norm, dark


def single(image: Float64 | None) -> NDArray[np.float32] | None:
    """Return the image as pyFAI takes it."""
    return None if image is None else image.astype(np.float32)


def azimuthal_integrator(calibration: Calibration) -> Any:
    """Return pyFAI's integrator for a calibration whose shape is known."""
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
