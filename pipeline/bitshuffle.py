"""Chunks of the codec ``bitshuffle-lz4`` (HDF5 filter 32008), decoded without trusting them.

A chunk is the size of the data (8 bytes) and of a block (4 bytes), then the blocks, each after its
compressed size (4 bytes), all big-endian; the last is cut to a multiple of 8 elements, and what is
left of these follows as it is. A block of s elements of e bytes has 8 e planes of s/8 bytes: bit j
of byte i of plane 8 b + k is bit k of byte b of element 8 i + j. Each is one LZ4 block.
(K. Masui et al., Astronomy and Computing 12 (2015) 181; the LZ4 block format, lz4.org.)

The filter of hdf5plugin 7.1 reads beyond the end of a chunk that was cut off, and gives numbers out
of it or ends the process.
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
BLOCK = 8192  # bytes, where the header says 0


def decode(chunk: Bytes, out: NDArray[Any]) -> None:
    """Write what `chunk` (n_bytes,) holds into `out`, contiguous, of the dtype it was written with.

    Raises
    ------
    PipelineError
        It does not hold just that.
    """
    size = out.dtype.itemsize
    if len(chunk) < HEADER:
        raise PipelineError(f"bitshuffle-lz4: a chunk of {len(chunk)} bytes")
    claimed = int.from_bytes(chunk[:8].tobytes(), "big")
    if claimed != out.nbytes:
        raise PipelineError(f"bitshuffle-lz4: {claimed} bytes claimed, {out.nbytes} are due")
    block = int.from_bytes(chunk[8:HEADER].tobytes(), "big")
    block = block or max(128, BLOCK // size // 8 * 8) * size
    if block % (8 * size):
        raise PipelineError(f"bitshuffle-lz4: blocks of {block} bytes, elements of {size}")
    most = min(block, out.nbytes) // 8
    work, turned = np.empty(8 * most, np.uint8), np.empty(most, np.uint64)
    chunk = chunk.view()
    chunk.flags.writeable = False  # else compiled for both kinds
    bad = _decode(chunk, out.reshape(-1).view(np.uint8), size, block, work, turned)
    if bad >= 0:
        raise PipelineError(f"bitshuffle-lz4: the chunk is damaged at byte {bad} of {len(chunk)}")


@njit(nogil=True, cache=True)
def _decode(
    chunk: Bytes, out: Bytes, size: int, block: int, work: Bytes, turned: NDArray[np.uint64]
) -> Any:
    """Return -1, or where the chunk is no chunk any more."""
    at: Any = HEADER
    done = 0
    whole = out.size // (8 * size) * (8 * size)
    while done < whole:
        n = min(block, whole - done)
        if chunk.size - at < 4:
            return at
        length: Any = (
            (np.int64(chunk[at]) << 24)
            | (np.int64(chunk[at + 1]) << 16)
            | (np.int64(chunk[at + 2]) << 8)
            | np.int64(chunk[at + 3])
        )
        at += 4
        if length > chunk.size - at or not lz4(chunk[at : at + length], work[:n]):
            return at
        _unshuffle(work[:n], out[done : done + n], size, turned)
        at += length
        done += n
    if chunk.size - at != out.size - done:
        return at
    for i in range(out.size - done):
        out[done + i] = chunk[at + i]
    return -1


@njit(nogil=True, cache=True)
def lz4(source: Bytes, out: Bytes) -> bool:
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
        if back == 1:
            last = out[done - 1]
            for i in range(done, done + length):
                out[i] = last
        elif back >= WIDE and length + WIDE <= out.size - done:
            _copy(out, done - back, out, done, length)
        else:  # what is copied is written in the same turn
            for i in range(done, done + length):
                out[i] = out[i - back]
        done += length
    return False


@njit(nogil=True, cache=True)
def _copy(source: Bytes, at: int, out: Bytes, done: int, length: int) -> None:
    """Copy `length` bytes and at most `WIDE` more, which are written again or not there."""
    for i in range(0, length, WIDE):
        store(out, done + i, load(source, at + i, SIXTEEN))


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


@njit(nogil=True, cache=True)
def _unshuffle(planes: Bytes, out: Bytes, size: int, turned: NDArray[np.uint64]) -> None:
    """Write the elements of `size` bytes whose bits are in `planes`; `turned` is (n_bytes / 8,)."""
    n = planes.size // (8 * size)
    for b in range(size):
        _turn(planes[8 * b * n : 8 * (b + 1) * n].reshape(8, n), turned[b * n : (b + 1) * n])
    parts = turned[: size * n].view(np.uint8).reshape(size, 8 * n)
    if size == 1:
        for i in range(8 * n):
            out[i] = parts[0, i]
    elif size == 2:  # 9 times as fast as byte by byte, and most frames are of 2
        _join(parts[0], parts[1], out.view(np.uint16))
    elif size == 4:
        wide = out.view(np.uint32)
        for i in range(8 * n):
            low = np.uint32(parts[0, i]) | (np.uint32(parts[1, i]) << np.uint32(8))
            high = np.uint32(parts[2, i]) | (np.uint32(parts[3, i]) << np.uint32(8))
            wide[i] = low | (high << np.uint32(16))
    else:
        for b in range(size):
            for i in range(8 * n):
                out[i * size + b] = parts[b, i]


@njit(nogil=True, cache=True)
def _turn(planes: Bytes, out: NDArray[np.uint64]) -> None:
    """Turn `planes` (8, n): bit j of byte i of plane k is bit k of byte j of `out` (n,) i."""
    p0, p1, p2, p3 = planes[0], planes[1], planes[2], planes[3]
    p4, p5, p6, p7 = planes[4], planes[5], planes[6], planes[7]
    for i in range(out.size):
        x = np.uint64(p0[i]) | (np.uint64(p1[i]) << np.uint64(8))
        x |= (np.uint64(p2[i]) << np.uint64(16)) | (np.uint64(p3[i]) << np.uint64(24))
        x |= (np.uint64(p4[i]) << np.uint64(32)) | (np.uint64(p5[i]) << np.uint64(40))
        x |= (np.uint64(p6[i]) << np.uint64(48)) | (np.uint64(p7[i]) << np.uint64(56))
        t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
        x = x ^ t ^ (t << np.uint64(7))
        t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
        x = x ^ t ^ (t << np.uint64(14))
        t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
        out[i] = x ^ t ^ (t << np.uint64(28))


@njit(nogil=True, cache=True)
def _join(low: Bytes, high: Bytes, out: NDArray[np.uint16]) -> None:
    for i in range(out.size):
        out[i] = np.uint16(low[i]) | (np.uint16(high[i]) << np.uint16(8))
