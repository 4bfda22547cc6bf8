"""Arrays as ``seedee`` packs them: a description in JSON, and a chunk of HDF5.

What the description claims is checked before anything is made of it, and chunks are decoded by
`phasewatch.pipeline.packing` and `phasewatch.pipeline.bitshuffle`, not by ``seedee.deserialize``:
version 0.3.2 ends the process on a description whose numbers are wrong, and reads beyond the end of
an LZ4 chunk that was cut off.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.pipeline.packing import decode
from phasewatch.plugins.sources.trust import check_item

LZ4 = 32004
CODECS = {0: "none", 1: "deflate", LZ4: "lz4", 32008: "bitshuffle-lz4"}  # ids of HDF5's filters
KINDS = {ord(kind): kind for kind in "iuf"}
ORDERS = {ord("<"): "<", ord(">"): ">"}
MOST_TEXT = 4096
LEAST_BLOCK = 4096  # bytes; seedee makes one block of it all


@dataclass(frozen=True)
class Claim:
    """What one array is said to be: (height, width), its dtype in its byte order, compression."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compression: int

    @property
    def spec(self) -> ItemSpec:
        """The same as an item, in little-endian order."""
        return ItemSpec.of(self.shape, self.dtype.newbyteorder("<"))


def read_claim(text: object) -> Claim:
    """Return what the description `text` claims.

    Raises
    ------
    MessageError
        It is no description of an image.
    """
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise MessageError("meta._data_format is not a description by seedee")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError(f"meta._data_format is not JSON: {text!r:.60}") from None
    array = said.get("array") if isinstance(said, dict) else None
    if not isinstance(array, Mapping) or said.get("protocol") != "seedee":
        raise MessageError(f"meta._data_format is not of seedee: {text!r:.60}")
    if said.get("data_format") != "hdf5_chunk" or array.get("stride") is not None:
        raise MessageError(f"seedee: not a chunk in C order: {text!r:.60}")
    shape, size = array.get("shape"), array.get("itemsize")
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int for n in shape):
        raise MessageError(f"seedee: shape {shape!r:.60}, an image has two axes")
    order, kind = _known(ORDERS, array, "byteorder"), _known(KINDS, array, "datatype")
    _known(CODECS, said, "compression")
    if (
        type(size) is not int
        or size not in (1, 2, 4, 8)
        or (kind == "f" and size < 4)
        or min(shape) < 1
    ):
        raise MessageError(f"seedee: {kind}{size!r:.20} {shape}")
    claim = Claim((shape[0], shape[1]), np.dtype(f"{order}{kind}{size}"), said["compression"])
    check_item(claim.spec, "frame")
    if claim.compression == 32008 and said.get("compression_opts") != [0, 2]:
        raise MessageError("seedee: bitshuffle without LZ4")
    return claim


def unpack(claim: Claim, chunk: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Write what `chunk` (n_bytes,) holds into `out` (height, width), of any dtype that holds it.

    Raises
    ------
    PipelineError
        It does not hold just what was claimed.
    """
    straight = out.dtype == claim.dtype and out.flags.c_contiguous
    into = out if straight else np.empty(claim.shape, claim.dtype)
    codec = CODECS[claim.compression]
    if codec == "none":
        if chunk.nbytes != into.nbytes:
            raise PipelineError(f"seedee: {chunk.nbytes} bytes, {into.nbytes} are due")
        into[...] = chunk.view(claim.dtype).reshape(claim.shape)
    elif codec == "lz4":
        _unpack_lz4(chunk, into)
    else:
        decode(codec, chunk, into)
    if not straight:
        out[...] = into


def _unpack_lz4(chunk: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Write what the chunk of HDF5's filter 32004 holds.

    It is the size of the data (8 bytes) and of a block (4 bytes), then the blocks, each after its
    compressed size (4 bytes; that of the block where it is not compressed), all big-endian.
    """
    from phasewatch.pipeline import lz4  # numba, only where it is needed

    flat = out.reshape(-1).view(np.uint8)
    if len(chunk) < 12 or _number(chunk[:8]) != flat.size:
        raise PipelineError(f"seedee: an LZ4 chunk that is not one of {flat.size} bytes")
    block, at = min(_number(chunk[8:12]), flat.size), 12
    if block < min(flat.size, LEAST_BLOCK):
        raise PipelineError(f"seedee: LZ4 in blocks of {block} bytes")
    chunk = chunk.view()
    chunk.flags.writeable = False  # else compiled for both kinds
    for done in range(0, flat.size, block):
        into, length = flat[done : done + block], _number(chunk[at : at + 4])
        packed = chunk[at + 4 : at + 4 + length]
        at += 4 + length
        if len(packed) < length or not length:
            raise PipelineError(f"seedee: an LZ4 chunk of {len(chunk)} bytes ends too early")
        if length == len(into):
            into[...] = packed
        elif not lz4.block(packed, into):
            raise PipelineError(f"seedee: the LZ4 block of byte {done} is damaged")
    if at != len(chunk):
        raise PipelineError(f"seedee: {len(chunk) - at} bytes after the last LZ4 block")


def _number(data: NDArray[np.uint8]) -> int:
    return int.from_bytes(data.tobytes(), "big")


def _known(table: Mapping[int, str], said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if type(value) is not int or value not in table:
        known = ", ".join(str(key) for key in table)
        raise MessageError(f"seedee: {name} {value!r:.40}; known: {known}")
    return table[value]
