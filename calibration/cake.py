"""Integration in two dimensions ("caking"): frames to intensity over azimuth and radius.

A cell is a bin of both, and the sums are those of `integrate` with the cell as the bin. It shows at
a glance whether rings are even (powder), spotty (few grains) or arcs (texture). The azimuth chi is
pyFAI's: degrees from axis 2 (x) towards axis 1 (y), in (-180, 180].
"""

import hashlib
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.calibration import Calibration, known_shape
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.integrate import (
    Split,
    Unit,
    check_frames,
    check_options,
    check_patterns,
)
from phasewatch.calibration.pixel_sums import PixelSums
from phasewatch.calibration.plan import Prepared, frozen, make_sums
from phasewatch.calibration.plan_cache import cached
from phasewatch.calibration.reference import (
    azimuthal_integrator,
    entries_of,
    pixel_weights,
)

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
        self.shape, self.unit, self.calibration = known_shape(calibration), unit, calibration
        options = ["cake", int(n_bins), int(n_azimuth), unit, split, limits, around]
        text = json.dumps([calibration.digest, *options])
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        sizes = int(n_bins), int(n_azimuth)

        def make() -> Prepared:
            return _prepare(calibration, sizes, unit, split, limits, around)

        prepared = cached(self.digest, math.prod(self.shape), sizes, make)
        (self.axis, self.azimuth), self.valid, sums = prepared
        self._sums = PixelSums(sums, calibration.saturation)

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


def _prepare(
    calibration: Calibration,
    sizes: tuple[int, int],
    unit: str,
    split: str,
    limits: tuple[float, float] | None,
    around: tuple[float, float] | None,
) -> Prepared:
    shape, ai = known_shape(calibration), azimuthal_integrator(calibration)
    blank = ai.integrate2d(
        np.zeros(shape, np.float32),
        *sizes,
        unit=unit,
        radial_range=limits,
        azimuth_range=around,
        mask=np.array(calibration.mask),
        method=(split, "csr", "cython"),
    )
    axis, azimuth = (np.array(x, np.float64) for x in (blank.radial, blank.azimuthal))
    valid = np.asarray(blank.count) > 0
    if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
        raise CalibrationError(f"axis: the geometry gives no increasing, finite axis in {unit}")
    if not valid.any():
        raise CalibrationError(
            f"range: no valid pixel is in {limits} {unit} and {around} degrees of azimuth"
        )
    weights = pixel_weights(ai, calibration, shape)
    sums = make_sums(entries_of(ai), *weights, math.prod(sizes))
    valid &= sums.plan.n_entries.reshape(sizes).T > 0  # not where pyFAI has but infinite shares
    return Prepared((frozen(axis), frozen(azimuth)), frozen(valid), sums)
