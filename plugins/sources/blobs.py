"""Images as detector streams carry them: bytes, with what they are said to be.

What is said is compared before anything is decoded, and decoding writes straight from where the
bytes were received into the array that is given. Codecs: ``raw``, ``lz4`` and ``bslz4``
(bitshuffle, then LZ4), the latter two with the 12-byte header of HDF5's filters or without: with it
they begin with four zeros, which neither a bare LZ4 block nor bitshuffle's first block can.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration import masks
from phasewatch.calibration.errors import CalibrationError
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.found import Began, Frame
from phasewatch.plugins.sources.trust import check_item

Codec = Literal["raw", "lz4", "bslz4"]
_KINDS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
DTYPES = {np.dtype(kind).name: np.dtype(kind) for kind in _KINDS}


def mask_of(blob: "Blob") -> NDArray[np.bool_]:
    """Return which pixels (height, width) the pixel mask `blob` marks.

    Raises
    ------
    MessageError
        It cannot be decoded, or is none of bits.
    """
    try:
        return masks.of_bits("pixel mask", blob.array())
    except (PipelineError, CalibrationError) as error:
        raise MessageError(f"pixel mask: {error}") from None


@dataclass(frozen=True)
class Blob:
    """One image.

    Attributes
    ----------
    data
        Its bytes, where they were received.
    shape
        (height, width).
    dtype
        Of its numbers, in the byte order that they have once decoded.

    Raises
    ------
    MessageError
        No image is like that.
    """

    data: memoryview
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    codec: Codec = "raw"

    def __post_init__(self) -> None:
        check_item(self.item, "frame")

    @cached_property
    def item(self) -> ItemSpec:
        """What it is like, in native byte order."""
        return ItemSpec.of(self.shape, self.dtype.newbyteorder("="))

    def write(self, out: NDArray[Any]) -> None:
        """Decode it into `out` (height, width), contiguous, in native byte order.

        Raises
        ------
        PipelineError
            It is not just that.
        """
        chunk = np.frombuffer(self.data, np.uint8)
        if self.codec == "raw":
            if len(chunk) != out.nbytes:
                raise PipelineError(f"raw: {len(chunk)} bytes came, {out.nbytes} are due")
            out.reshape(-1).view(np.uint8)[...] = chunk
        else:
            from phasewatch.pipeline import bitshuffle, lz4  # numba, only where it is needed

            decode = lz4.decode if self.codec == "lz4" else bitshuffle.decode
            decode(chunk, out, bare=len(chunk) < lz4.HEADER or bool(chunk[:4].any()))
        if not self.dtype.isnative:
            out.byteswap(inplace=True)

    def array(self) -> NDArray[Any]:
        """Return it decoded; raises as `write` does."""
        out = np.empty(self.item.shape, self.item.dtype)
        self.write(out)
        return out


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype that is called `name`, as in ``uint16``.

    Raises
    ------
    MessageError
        It is none of numbers.
    """
    if name not in DTYPES:
        raise MessageError(f"type {name!r:.40} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def joined(frame: Frame) -> Began:
    """Return the start of a run that is known by `frame` alone."""
    facts = {"saturation": saturation(frame.frame.dtype)}
    return Began(frame.frame, frame.series, timed=frame.t_acq is not None, facts=facts)


def saturation(dtype: Any, highest: int | None = None) -> float | None:
    """Return the lowest count that is not to be believed, None where there is none.

    `highest` is the highest that is. The highest count of a type is none: detectors write it into
    pixels that are masked or saturated (DECTRIS: NODATA), and cameras where they are saturated.
    """
    if np.dtype(dtype).kind == "f":
        return None if highest is None else highest + 1.0
    top = int(np.iinfo(dtype).max)
    return float(top if highest is None else min(highest + 1, top))
