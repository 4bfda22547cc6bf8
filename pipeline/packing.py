"""Frames as the detector's files hold them, compressed: what is sent to other hosts unopened.

A packed frame is one chunk of bytes per tile, a rectangle of the frame; `Packing`, said once, has
where they go. `Unpacker` makes frames of them and trusts nothing: the size of a result is known
before it is decoded, and a chunk that does not give just that is an error.

Codecs: ``deflate`` and ``shuffle+deflate`` (HDF5 filters 1 and 2) and ``bitshuffle-lz4``.
"""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, Packing
from phasewatch.pipeline.errors import PipelineError

CODECS = ("deflate", "shuffle+deflate", "bitshuffle-lz4")
MOST_BYTES = 1 << 29  # of the frames of one message
NAMES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
DTYPES = {np.dtype(name).str: np.dtype(name) for name in NAMES}

Chunk = NDArray[np.uint8]


def decode(codec: str, chunk: Chunk, out: NDArray[Any]) -> None:
    """Write what `chunk` (n_bytes,) holds into `out`, contiguous, of the dtype it was written with.

    Raises
    ------
    PipelineError
        It does not hold just that.
    """
    if codec == "bitshuffle-lz4":
        from phasewatch.pipeline import bitshuffle  # numba, only where it is needed

        bitshuffle.decode(chunk, out)
    elif codec in CODECS:
        data = np.frombuffer(_inflate(chunk, out.nbytes), np.uint8)
        if codec == "shuffle+deflate":
            data = np.ascontiguousarray(data.reshape(out.itemsize, -1).T)
        out[...] = data.reshape(-1).view(out.dtype).reshape(out.shape)
    else:
        raise PipelineError(f"codec {codec!r:.40} is not one of {', '.join(CODECS)}")


def warm_up(codec: str) -> None:
    """Compile what `decode` needs for `codec`; takes some 4 s where it was never done."""
    small = np.zeros(8, np.uint8)
    with suppress(PipelineError):
        decode(codec, np.frombuffer((8).to_bytes(8, "big") + bytes(8), np.uint8), small)


class Unpacker:
    """Makes frames `spec` of chunks that are packed as `packing` says.

    Raises
    ------
    PipelineError
        Such chunks are no such frames.
    """

    def __init__(self, packing: Packing, spec: ItemSpec) -> None:
        dtype, whole = DTYPES.get(packing.dtype), DTYPES.get(spec.dtype)
        if dtype is None or whole is None or packing.codec not in CODECS:
            raise PipelineError(f"packed as {packing.codec} of {packing.dtype} for {spec.dtype}")
        if len(spec.shape) != 2 or not np.can_cast(dtype, whole, "safe"):
            raise PipelineError(f"{dtype} tiles are no {whole} {spec.shape}")
        if whole.kind != "f" and not np.iinfo(whole).min <= packing.fill <= np.iinfo(whole).max:
            raise PipelineError(f"fill {packing.fill} is no {whole}")
        for tile in packing.tiles:
            top, left, height, width = tile
            if top + height > spec.shape[0] or left + width > spec.shape[1]:
                raise PipelineError(f"tile {tile} is not in a frame {spec.shape}")
        self._packing, self._spec, self._dtype = packing, spec, dtype
        self._whole = packing.tiles == ((0, 0, *spec.shape),)

    @property
    def n_tiles(self) -> int:
        """Chunks per frame."""
        return len(self._packing.tiles)

    def frame(self, chunks: Sequence[Chunk], out: NDArray[Any]) -> None:
        """Write the frame of `chunks` into `out` (height, width); raises as `decode` does."""
        view = out[::-1] if self._packing.flip else out
        if not self._whole:
            out[...] = self._packing.fill
        for (top, left, height, width), chunk in zip(self._packing.tiles, chunks, strict=True):
            tile = np.empty((height, width), self._dtype)
            decode(self._packing.codec, chunk, tile)
            view[top : top + height, left : left + width] = tile

    def batch(
        self, bare: Batch, packed: Sequence[Sequence[Chunk]]
    ) -> tuple[Batch, tuple[Failure, ...]]:
        """Return `bare` with the frames of `packed`, and a failure for each that is none.

        Raises
        ------
        PipelineError
            More frames than fit in a message are claimed.
        """
        nbytes = int(np.prod(self._spec.shape, dtype=object)) * np.dtype(self._spec.dtype).itemsize
        if nbytes * len(bare) > MOST_BYTES:
            raise PipelineError(f"{len(bare)} packed frames are {nbytes * len(bare)} bytes")
        frames = np.empty((len(bare), *self._spec.shape), self._spec.dtype)
        failures, good = [], np.ones(len(bare), np.bool_)
        for k, chunks in enumerate(packed):
            try:
                self.frame(chunks, frames[k])
            except PipelineError as error:
                good[k] = False
                seq, number = int(bare.seq[k]), int(bare.ids[k])
                failures.append(Failure(seq, number, "unpack", str(error)))
        batch = bare.with_arrays(frame=frames)
        return (batch.select(np.flatnonzero(good)) if failures else batch), tuple(failures)


def _inflate(chunk: Chunk, n: int) -> bytes:
    """Return the `n` bytes that `chunk` was compressed from; never makes more."""
    opened = zlib.decompressobj()
    try:
        data = opened.decompress(chunk.data, n)
        more = opened.decompress(opened.unconsumed_tail, 1)
    except zlib.error as error:
        raise PipelineError(f"deflate: {error}") from None
    if len(data) != n or more or not opened.eof:
        raise PipelineError(f"deflate: a chunk of {len(chunk)} bytes is not one of {n}")
    return data
