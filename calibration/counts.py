"""Which counts of a frame are valid, in the frame's own type."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def native(frame: Array) -> Array:
    """Return the frame in a type the kernels take: native order, int64 for uint64."""
    if frame.dtype.kind == "b":
        return frame.view(np.uint8)
    if frame.dtype.kind == "f" and frame.dtype.itemsize not in (4, 8):
        return frame.astype(np.float32 if frame.dtype.itemsize < 4 else np.float64)
    plain = frame.astype(frame.dtype.newbyteorder("="), copy=False)
    # No detector counts to 2**63: what is above is a flag, and becomes negative, that is invalid.
    return plain.astype(np.int64) if plain.dtype == np.uint64 else plain


def last_valid(dtype: np.dtype[Any], saturation: float | None) -> Any:
    """Return the highest count of type `dtype` below `saturation`."""
    scalar = dtype.type
    if dtype.kind != "f":
        highest = np.iinfo(dtype).max
        return scalar(highest if saturation is None else min(math.ceil(saturation) - 1, highest))
    highest = scalar(np.finfo(np.float32).max)  # what a pattern, float32, can hold
    if saturation is None or saturation > highest:
        return highest
    limit = scalar(saturation)
    return np.nextafter(limit, scalar(0)) if float(limit) >= saturation else limit
