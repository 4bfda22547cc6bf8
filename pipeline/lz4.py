"""LZ4 blocks, alone or as HDF5's filter 32004 frames them, decoded without trusting them.

A chunk is the size of the data (8 bytes) and of a block (4 bytes), then the blocks, each after its
compressed size (4 bytes), all big-endian; a block as long as what it stands for is not compressed.
(The LZ4 block format, lz4.org; HDFGroup/hdf5_plugins, LZ4_HDF5_format.md.)
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from phasewatch.calibration.simd import load, store
from phasewatch.pipeline.errors import PipelineError

Bytes = NDArray[np.uint8]
HEADER = 12
WIDE, SIXTEEN = 16, (0,) * 16


def claims(codec: str, chunk: Bytes, out: NDArray[Any]) -> int:
    """Return the size of a block by the header of `chunk` (n_bytes,), which is to fill `out`.

    Raises
    ------
    PipelineError
        It has no header, or is of another size.
    """
    if len(chunk) < HEADER:
        raise PipelineError(f"{codec}: a chunk of {len(chunk)} bytes")
    claimed = int.from_bytes(chunk[:8].tobytes(), "big")
    if claimed != out.nbytes:
        raise PipelineError(f"{codec}: {claimed} bytes claimed, {out.nbytes} are due")
    return int.from_bytes(chunk[8:HEADER].tobytes(), "big")


def decode(chunk: Bytes, out: NDArray[Any], *, bare: bool = False) -> None:
    """Write what `chunk` (n_bytes,) holds into `out`, contiguous; `bare`: it is one block alone.

    Raises
    ------
    PipelineError
        It does not hold just that.
    """
    whole = out.reshape(-1).view(np.uint8)
    size = len(whole) if bare else claims("lz4", chunk, out)
    chunk = chunk.view()
    chunk.flags.writeable = False  # else compiled for both kinds
    if bare:
        bad = -1 if block(chunk, whole) else 0
    else:
        bad = HEADER if size < 1 else _blocks(chunk, whole, size)
    if bad >= 0:
        raise PipelineError(f"lz4: the chunk is damaged at byte {bad} of {len(chunk)}")


@njit(nogil=True, cache=True)
def length_at(chunk: Bytes, at: int) -> Any:
    """Return the big-endian number of 4 bytes at `at`, -1 where the chunk ends before."""
    if chunk.size - at < 4:
        return -1
    return (
        (np.int64(chunk[at]) << 24)
        | (np.int64(chunk[at + 1]) << 16)
        | (np.int64(chunk[at + 2]) << 8)
        | np.int64(chunk[at + 3])
    )


@njit(nogil=True, cache=True)
def block(source: Bytes, out: Bytes) -> bool:
    """Fill `out` from the LZ4 block `source`; tell whether it is one of just that size."""
    at, done = 0, 0
    while at < source.size:
        token: Any = np.int64(source[at])
        at, length = _length(source, at + 1, token >> 4)
        if at < 0 or length > source.size - at or length > out.size - done:
            return False
        if length + WIDE <= min(source.size - at, out.size - done):
            _copy(source, at, out, done, length)
        else:
            for i in range(length):
                out[done + i] = source[at + i]
        at += length
        done += length
        if at == source.size:
            return bool(done == out.size)
        if source.size - at < 2:
            return False
        back: Any = np.int64(source[at]) | (np.int64(source[at + 1]) << 8)
        at, length = _length(source, at + 2, token & 15)
        length += 4
        if at < 0 or back == 0 or back > done or length > out.size - done:
            return False
        if back < WIDE and length > WIDE and _alike(out[done - back : done]):
            out[done : done + length] = out[done - 1]  # of empty bit planes, nearly all of a frame
        elif back >= WIDE and length + WIDE <= out.size - done:
            _copy(out, done - back, out, done, length)
        else:  # what is copied is written in the same turn
            _repeat(out, done, length, back)
        done += length
    return False


@njit(nogil=True, cache=True)
def _blocks(chunk: Bytes, out: Bytes, size: int) -> Any:
    """Return -1, or where the chunk is no chunk any more."""
    at: Any = HEADER
    done = 0
    while done < out.size:
        n = min(size, out.size - done)
        length = length_at(chunk, at)
        if length < 0 or length > chunk.size - at - 4:
            return at
        at += 4
        if length == n:
            out[done : done + n] = chunk[at : at + n]
        elif not block(chunk[at : at + length], out[done : done + n]):
            return at
        at += length
        done += n
    return -1 if at == chunk.size else at


@njit(nogil=True, cache=True)
def _copy(source: Bytes, at: int, out: Bytes, done: int, length: int) -> None:
    """Copy `length` bytes and at most `WIDE` more, which are written again or not there."""
    for i in range(0, length, WIDE):
        store(out, done + i, load(source, at + i, SIXTEEN))


@njit(nogil=True, cache=True)
def _alike(some: Bytes) -> bool:
    differing = 0
    for i in range(1, some.size):
        differing |= some[i] ^ some[0]
    return differing == 0


@njit(nogil=True, cache=True)
def _repeat(out: Bytes, done: int, length: int, back: int) -> None:
    """Write `length` bytes, each what is `back` before it; `WIDE` at once where they are many."""
    step = back if back >= WIDE else back * (WIDE // back + 1)  # the same bytes, farther back
    head = min(length, step - back)
    for i in range(done, done + head):
        out[i] = out[i - back]
    wide = (length - head) // WIDE * WIDE
    _copy(out, done + head - step, out, done + head, wide)
    for i in range(done + head + wide, done + length):
        out[i] = out[i - back]


@njit(nogil=True, cache=True)
def _length(source: Bytes, at: int, length: Any) -> tuple[int, int]:
    """Return where to go on, -1 at the end, and the length that began with 4 bits."""
    if length == 15:
        more: Any = 255
        while more == 255:
            if at >= source.size:
                return -1, 0
            more = np.int64(source[at])
            length += more
            at += 1
    return at, length
