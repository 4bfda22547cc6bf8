"""Integration in two dimensions ("caking"): frames to intensity over azimuth and radius.

A cell is a bin of both, and the sums are those of `integrate` with the cell as the bin. It shows at
a glance whether rings are even (powder), spotty (few grains) or arcs (texture). The azimuth chi is
pyFAI's: degrees from axis 2 (x) towards axis 1 (y), in (-180, 180].
"""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.integrate import (
    Split,
    Unit,
    check_frames,
    check_options,
    check_patterns,
)
from phasewatch.calibration.pixel_sums import PixelSums
from phasewatch.calibration.plan import make_sums
from phasewatch.calibration.reference import azimuthal_integrator, entries_of, pixel_weights

Array = NDArray[Any]


class Cake:
    """Makes maps (n, n_azimuth, n_bins) float32 of frames (n, height, width) of any real type.

    Parameters
    ----------
    calibration
        With a known shape.
    n_bins, n_azimuth
        Number of bins of the radial axis and of the azimuth.
    unit
        Of the radial axis: ``2th_deg``, ``q_nm^-1`` or ``q_A^-1``.
    split
        How a pixel is shared between cells: ``no``, ``bbox`` or ``full``, as in pyFAI.
    range
        Limits of the radial axis in `unit`; by default those of the valid pixels.
    azimuth_range
        Limits of the azimuth, degrees; by default those of the valid pixels.

    Attributes
    ----------
    axis, azimuth
        Centres of the bins: (n_bins,) float64 in `unit` and (n_azimuth,) float64 in degrees.
    valid
        (n_azimuth, n_bins) bool, the cells that have pixels.
    unit, digest
        The unit, and sha256 (hex) of calibration and options.

    Raises
    ------
    CalibrationError
        An option is out of range or no valid pixel is in the ranges.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        n_bins: int,
        n_azimuth: int,
        unit: Unit = "2th_deg",
        split: Split = "no",
        range: tuple[float, float] | None = None,
        azimuth_range: tuple[float, float] | None = None,
    ) -> None:
        limits = check_options(n_bins, unit, split, range)
        around = check_options(n_azimuth, unit, split, azimuth_range, "n_azimuth", "azimuth_range")
        if calibration.shape is None or calibration.mask is None:
            raise CalibrationError("shape: the detector's is unknown: give it, or a mask")
        self.shape, self.unit, self.calibration = calibration.shape, unit, calibration
        ai = azimuthal_integrator(calibration)
        blank = ai.integrate2d(
            np.zeros(self.shape, np.float32),
            int(n_bins),
            int(n_azimuth),
            unit=unit,
            radial_range=limits,
            azimuth_range=around,
            mask=calibration.mask.copy(),
            method=(split, "csr", "cython"),
        )
        self.axis = np.array(blank.radial, np.float64)
        self.azimuth = np.array(blank.azimuthal, np.float64)
        self.valid = np.asarray(blank.count) > 0
        for array in (self.axis, self.azimuth, self.valid):
            array.setflags(write=False)
        if not (np.isfinite(self.axis).all() and (np.diff(self.axis) > 0).all()):
            raise CalibrationError(f"axis: the geometry gives no increasing, finite axis in {unit}")
        if not self.valid.any():
            raise CalibrationError(
                f"range: no valid pixel is in {limits} {unit} and {around} degrees of azimuth"
            )
        weights = pixel_weights(ai, calibration, self.shape)
        sums = make_sums(entries_of(ai), *weights, int(n_bins) * int(n_azimuth))
        self._sums = PixelSums(sums, calibration.saturation)
        options = ["cake", int(n_bins), int(n_azimuth), unit, split, limits, around]
        text = json.dumps([calibration.digest, *options])
        self.digest = hashlib.sha256(text.encode()).hexdigest()

    def __call__(self, frames: Array) -> NDArray[np.float32]:
        """Return the maps (n, n_azimuth, n_bins) of `frames` (n, height, width), NaN where empty.

        Raises
        ------
        CalibrationError
            The frames have another shape, are not real numbers, or one has no valid pixel.
        """
        frames = check_frames(frames, self.shape)
        n_bins, n_azimuth = len(self.axis), len(self.azimuth)
        cells = np.empty((len(frames), n_bins * n_azimuth), np.float32)  # azimuth runs first
        check_patterns(self._sums(frames, cells), len(frames))
        return np.ascontiguousarray(cells.reshape(-1, n_bins, n_azimuth).transpose(0, 2, 1))
