"""Frames read from files into memory that the receiver lends, so that none is copied.

A source that can do so has ``lend(allocate)``; ``allocate(n)`` gives writable arrays (m, ...) by
the names of the run's items, 1 <= m <= n, or None where there is no memory to lend. They hold what
was there before, so every pixel has to be written.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py.h5d import FILL_TIME_NEVER, FILL_VALUE_UNDEFINED
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.items import READ_ERRORS

AT_ONCE = 8  # frames: what the kernels add together

Allocate = Callable[[int], Mapping[str, NDArray[Any]] | None]
Chunks = tuple[bytes, ...]
Read = Callable[[int, NDArray[Any]], None]
# By the ids of the filters of HDF5.
CODECS = {(1,): "deflate", (2, 1): "shuffle+deflate", (32008,): "bitshuffle-lz4"}
LZ4 = 2  # the fifth number of the filter bitshuffle


def own_memory(n: int) -> None:
    """Lend nothing: what `allocate` is where nobody lends."""


def never() -> bool:
    """Want no chunks: what `wanted` is where nobody asked."""
    return False


def open_file(path: str | Path, **options: Any) -> h5py.File:
    """Open the file `path` to read it, without a lock.

    HDF5 would lock it for readers. A detector that opens its file again, to go on writing, then
    fails; and on network disks without `flock` (Lustre and NFS, as they are often mounted) opening
    fails, whoever does it. What HDF5_USE_FILE_LOCKING says goes before this.
    """
    return h5py.File(path, "r", locking=False, **options)


def open_frames(path: str | Path, name: str) -> h5py.File:
    """Open the file `path` to read the frames of its dataset `name` in order.

    Chunks of one frame are not cached: HDF5 then reads them straight into the memory that it is
    given (0.28 ms a module of 1.6 MB in place of 0.53). Of larger ones the cache holds one.
    """
    with open_file(path) as file:
        data = file.get(name)
        together = data.chunks[0] if isinstance(data, h5py.Dataset) and data.chunks else 1
        cache = 0 if together == 1 else together * data.dtype.itemsize * math.prod(data.shape[1:])
    return open_file(path, rdcc_nbytes=cache)


class Rows:
    """The frames of one dataset (n, height, width).

    Attributes
    ----------
    at_once
        Frames that are cheap to read together: those of a chunk, and `AT_ONCE` where nothing has to
        be decompressed (0.8 ms a frame of 4.8 MB in place of 1.1 ms one by one).
    codec
        What each frame, a chunk of its own, is compressed by, if `pipeline.packing` has it.
    """

    def __init__(self, data: h5py.Dataset) -> None:
        made = data.id.get_create_plist()
        self._data = data
        # Of chunks that were never written HDF5 leaves the memory as it was.
        self._holes = (
            made.get_fill_time() == FILL_TIME_NEVER
            or made.fill_value_defined() == FILL_VALUE_UNDEFINED
        )
        self.at_once = min(data.chunks[0], AT_ONCE) if made.get_nfilters() else AT_ONCE
        self.codec = _codec(data, made)

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Write the frames from `first` on into `out` (m, height, width), in its byte order."""
        if self._holes:
            out[...] = 0
        self._data.read_direct(out, np.s_[first : first + len(out)])

    def chunk(self, row: int) -> bytes | None:
        """Return the chunk of the frame `row` if it was compressed by `codec`."""
        try:
            skipped, chunk = self._data.id.read_direct_chunk((row, 0, 0))
        except READ_ERRORS:  # it was never written
            return None
        return None if skipped or self.codec is None else bytes(chunk)


def _codec(data: h5py.Dataset, made: h5py.h5p.PropDCID) -> str | None:
    native = data.dtype == data.dtype.newbyteorder("<")
    if data.ndim != 3 or data.chunks != (1, *data.shape[1:]) or not native:
        return None
    filters = [made.get_filter(i) for i in range(made.get_nfilters())]
    codec = CODECS.get(tuple(number for number, *_ in filters))
    values = tuple(filters[0][2]) if filters else ()
    if codec == "bitshuffle-lz4" and values[4:5] != (LZ4,):
        return None
    return codec


def read_frames(
    frames: range,
    ids: NDArray[np.int64],
    spec: ItemSpec,
    read: Read,
    *,
    allocate: Allocate = own_memory,
    at_once: int = AT_ONCE,
    chunks: Callable[[int], Chunks] | None = None,
) -> Iterator[Batch | Failure]:
    """Yield `frames`, some at a time in memory that is lent, else one at a time in its own.

    Parameters
    ----------
    frames
        Their positions in the stream.
    ids
        (n,) the numbers of all frames of the stream, not of `frames` alone.
    spec
        What a frame is like.
    read
        ``read(seq, out)`` writes the frames from `seq` on into `out` (m, height, width), or raises
        PipelineError where one of them cannot be read; that one becomes a `Failure`, alone.
    at_once
        Most frames in a batch.
    chunks
        ``chunks(seq)`` gives what the frame `seq` was decoded from, () where that is not to be had.
    """
    seq = frames.start
    while seq < frames.stop:
        lent = allocate(min(at_once, frames.stop - seq))
        out = np.empty((1, *spec.shape), spec.dtype) if lent is None else lent["frame"]
        good, error = _read_all(read, seq, out)
        if good:
            positions = np.arange(seq, seq + good, dtype=np.int64)
            packed = () if chunks is None else tuple(chunks(s) for s in range(seq, seq + good))
            arrays = {"frame": out[:good]}
            packed = packed if any(packed) else ()
            yield Batch(seq=positions, ids=ids[seq : seq + good], arrays=arrays, packed=packed)
        seq += good
        if error is not None:
            yield Failure(seq, int(ids[seq]), "source", error)
            seq += 1


def _read_all(read: Read, seq: int, out: NDArray[Any]) -> tuple[int, str | None]:
    """Return how many frames could be read, and why the next could not."""
    try:
        read(seq, out)
    except PipelineError as error:
        if len(out) == 1:
            return 0, str(error)
    else:
        return len(out), None
    for k in range(len(out)):
        try:
            read(seq + k, out[k : k + 1])
        except PipelineError as error:
            return k, str(error)
    return len(out), None
