"""What a stream's source gave, and images compressed as detectors send them."""

from typing import Any

import h5py
import hdf5plugin
import numpy as np

from phasewatch.pipeline.batch import Failure
from phasewatch.plugins.sources.stream import Stream


def read(source: Stream, first: int = 0) -> list[tuple[int, Any]]:
    """Return (id, image or error) of all items; their seq are contiguous from `first` on."""
    found: list[tuple[int, Any]] = []
    seqs: list[int] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.id, item.error))
            seqs.append(item.seq)
        elif item is not None:
            found += zip(item.ids.tolist(), item.arrays["frame"].copy(), strict=True)
            seqs += item.seq.tolist()
    assert seqs == list(range(first, first + len(seqs)))
    return found


def compressed(array: np.ndarray, codec: str) -> bytes:
    """Compress `array` as the filters of HDF5 do."""
    filters = hdf5plugin.Bitshuffle(cname="lz4") if codec == "bslz4" else hdf5plugin.LZ4()
    with h5py.File("c", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", data=array[None], chunks=(1, *array.shape), **filters)
        file.flush()
        return bytes(data.id.read_direct_chunk((0, 0, 0))[1])
