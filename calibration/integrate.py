"""Azimuthal integration: frames to patterns, with a plan that is made once.

``x_i`` counts of pixel i, ``D_i`` its dark, ``N_i`` = solid angle x polarisation x flat, ``c_ib``
pyFAI's share of pixel i in bin b. The intensity of bin b is

    I_b = ( sum_i c_ib x_i - sum_i c_ib D_i ) / sum_i c_ib N_i

over the valid pixels, NaN where there is none. A pixel is invalid in every frame if the calibration
masks it, and in one frame if its count is negative, not finite, or at least the saturation; it then
leaves all three sums.

The bins and the axis are those of pyFAI's sparse engines (``(split, "csr", "cython")``), for all
splittings: the range of the axis is that of the pixels the calibration does not mask. (pyFAI's
``histogram`` engine takes the range of all pixels instead.)
"""

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.calibration import Calibration, known_shape
from phasewatch.calibration.counts import native
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.pixel_sums import PixelSums
from phasewatch.calibration.plan import Prepared
from phasewatch.calibration.plan_cache import cached

if TYPE_CHECKING:
    from phasewatch.calibration.reference import Reference

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Patterns = NDArray[np.float32]
Unit = Literal["2th_deg", "q_nm^-1", "q_A^-1"]
Split = Literal["no", "bbox", "full"]
Engine = Literal["auto", "numba", "pyfai"]

UNITS = ("2th_deg", "q_nm^-1", "q_A^-1")
SPLITS = ("no", "bbox", "full")
ENGINES = ("auto", "numba", "pyfai")


class Integrator:
    """Makes patterns (n, n_bins) float32 of frames (n, height, width) of any real type.

    Parameters
    ----------
    calibration
        With a known shape.
    n_bins
        Number of bins of the axis.
    unit
        ``2th_deg``, ``q_nm^-1`` or ``q_A^-1``.
    split
        How a pixel is shared between bins: ``no``, ``bbox`` or ``full``, as in pyFAI.
    range
        Limits of the axis in `unit`; by default those of the valid pixels.
    engine
        ``numba`` (``auto`` is the same): sums of raw counts in pixel order, several frames at a
        time; without splitting they are exact for integer counts. ``pyfai``: `pyFAI`'s
        ``integrate1d``, frame by frame.

    Attributes
    ----------
    axis
        (n_bins,) float64, bin centres in `unit`.
    valid
        (n_bins,) bool, the bins that have pixels.
    unit, digest
        The unit, and sha256 (hex) of calibration and options.

    Raises
    ------
    CalibrationError
        An option is out of range or the axis cannot be made.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        n_bins: int,
        unit: Unit = "2th_deg",
        split: Split = "no",
        range: tuple[float, float] | None = None,
        engine: Engine = "auto",
    ) -> None:
        limits = check_options(n_bins, unit, split, range)
        if engine not in ENGINES:
            raise CalibrationError(f"engine: {engine!r} is unknown; known: {', '.join(ENGINES)}")
        self.calibration = calibration
        self.unit = unit
        options = [int(n_bins), unit, split, limits, "pyfai" if engine == "pyfai" else "numba"]
        text = json.dumps([calibration.digest, *options])
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.shape = known_shape(calibration)
        self._integrate: Reference | PixelSums

        def make_reference() -> "Reference":
            # Imported where it is needed: a worker that finds its plan on disk does without pyFAI.
            from phasewatch.calibration.reference import Reference

            return Reference(calibration, int(n_bins), unit, split, limits)

        if engine == "pyfai":
            reference = make_reference()
            self.axis, self.valid, self._integrate = reference.axis, reference.valid, reference
            return

        def make() -> Prepared:
            reference = make_reference()
            return Prepared((reference.axis,), reference.valid, reference.sums())

        prepared = cached(self.digest, math.prod(self.shape), (int(n_bins),), make)
        (self.axis,), self.valid, sums = prepared
        self._integrate = PixelSums(sums, calibration.saturation)

    def __call__(self, frames: Array) -> Patterns:
        """Return the patterns (n, n_bins) of `frames` (n, height, width).

        Raises
        ------
        CalibrationError
            The frames have another shape, are not real numbers, or one has no valid pixel.
        """
        frames = check_frames(frames, self.shape)
        patterns = np.empty((len(frames), len(self.axis)), np.float32)
        check_patterns(self._integrate(frames, patterns), len(frames))
        return patterns

    def with_variance(self, frames: Array) -> tuple[Patterns, Patterns]:
        """Return the patterns of `frames` and their variances, both (n, n_bins).

        Counts are taken as Poisson distributed, with their own number as the estimate of their
        variance, and dark, flat and the rest as known:

            var I_b = sum_i c_ib^2 x_i / ( sum_i c_ib N_i )^2

        It is 0 where no pixel of a bin counted anything, and NaN where the pattern is. (pyFAI's
        ``error_model="poisson"`` has ``max(x_i, 1)`` in place of ``x_i``, which is more where most
        counts are 0; `with_variance` equals it to 1e-6 of the maximum where none is.) Bins that
        share pixels have a covariance beside; it is not given.

        Raises
        ------
        CalibrationError
            As when called.
        """
        frames = check_frames(frames, self.shape)
        patterns, variances = np.empty((2, len(frames), len(self.axis)), np.float32)
        check_patterns(self._integrate(frames, patterns, variances), len(frames))
        return patterns, variances


def check_options(
    n_bins: int,
    unit: str,
    split: str,
    limits: tuple[float, float] | None,
    n_name: str = "n_bins",
    limits_name: str = "range",
) -> tuple[float, float] | None:
    """Return the limits of an axis as floats.

    Raises
    ------
    CalibrationError
        An option is unknown or out of range; named as `n_name` and `limits_name` say.
    """
    for field, value, known in (("unit", unit, UNITS), ("split", split, SPLITS)):
        if value not in known:
            raise CalibrationError(f"{field}: {value!r} is unknown; known: {', '.join(known)}")
    if not n_bins >= 1 or n_bins != int(n_bins):
        raise CalibrationError(f"{n_name}: a whole number of at least 1 is needed, not {n_bins}")
    if limits is None:
        return None
    if not (len(limits) == 2 and -math.inf < limits[0] < limits[1] < math.inf):
        of = unit if limits_name == "range" else "degrees"
        raise CalibrationError(f"{limits_name}: (low, high) in {of} is expected, not {limits}")
    return float(limits[0]), float(limits[1])


def check_frames(frames: Array, shape: tuple[int, int]) -> Array:
    """Return `frames` in a type the kernels take.

    Raises
    ------
    CalibrationError
        They are not (n, height, width) of `shape`, or not real numbers.
    """
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[1:] != shape:
        raise CalibrationError(
            f"frame: shape {frames.shape}, but (n, {shape[0]}, {shape[1]}) is needed"
        )
    if frames.dtype.kind not in "buif":
        raise CalibrationError(f"frame: real numbers are expected, not {frames.dtype}")
    return native(frames)


def check_patterns(without: int, n: int) -> None:
    """Refuse the frame `without` of `n` as one that has no valid pixel; -1 is none."""
    if without >= 0:
        raise CalibrationError(
            "frame: all pixels invalid (negative, saturated or NaN)"
            + (f", in frame {without} of {n}" if n > 1 else "")
        )
