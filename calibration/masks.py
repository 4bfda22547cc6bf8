"""Which pixels are invalid, as masks, pixel-mask bits and flat fields say it (True = invalid)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.errors import CalibrationError

Mask = NDArray[np.bool_]
Array = NDArray[Any]

# NeXus NXdetector pixel_mask: bit 31 marks a virtual pixel, whose counts are interpolated but real.
INVALID_BITS = 0x7FFFFFFF

# Beam stop, gaps and bad pixels together seldom reach a third of a detector.
SUSPICIOUS, IMPOSSIBLE = 0.5, 0.95


def of_image(where: str, image: Array, *, inverted: bool | None = None) -> Mask:
    """Return the mask of a mask image, in which nonzero means invalid, or valid if `inverted`.

    Where `inverted` is None, an image that marks more than half of the pixels is refused as
    probably inverted; where it is said, one that marks more than 95 %.

    Raises
    ------
    CalibrationError
        The image is probably inverted, marks every pixel, or holds NaN; named by `where`.
    """
    if not np.isfinite(image).all():
        raise CalibrationError(f"{where}: all values must be finite")
    mask: Mask = (image == 0) if inverted else (image != 0)
    share = float(mask.mean())
    if share == 1:
        raise CalibrationError(f"{where}: marks every pixel invalid")
    if share > (SUSPICIOUS if inverted is None else IMPOSSIBLE):
        other = "false" if inverted else "true"
        meant = " (or false, if it is meant)" if inverted is None and share <= IMPOSSIBLE else ""
        raise CalibrationError(
            f"{where}: marks {100 * share:.1f} % of the pixels invalid and is probably inverted: "
            f"set mask_inverted = {other}{meant}"
        )
    return mask


def of_bits(where: str, image: Array, *, bits: int = INVALID_BITS) -> Mask:
    """Return the pixels in whose NeXus ``pixel_mask`` one of `bits` is set.

    Raises
    ------
    CalibrationError
        The image is not of integers; named by `where`.
    """
    if image.dtype.kind not in "ui":
        raise CalibrationError(f"{where}: unsigned integers are expected, not {image.dtype}")
    mask: Mask = (image.astype(np.uint32) & np.uint32(bits)) != 0
    return mask


def of_flat(where: str, flat: Array) -> Mask:
    """Return the pixels of a flat field that are zero, negative or not finite.

    Raises
    ------
    CalibrationError
        These are all of them; named by `where`.
    """
    usable: Mask = np.isfinite(flat) & (flat > 0)
    if not usable.any():
        raise CalibrationError(f"{where}: no pixel of it is positive and finite, leave it out")
    return ~usable
