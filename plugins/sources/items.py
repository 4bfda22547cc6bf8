"""What the file sources have in common: items, and going on with a run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError

BLOCK = 16  # patterns per batch
READ_ERRORS = (OSError, RuntimeError, KeyError)  # what h5py raises for a damaged file
DAMAGED = (*READ_ERRORS, ValueError, TypeError)  # and for one that changes while it is read


def frame_batch(seq: int, number: int, frame: NDArray[Any]) -> Batch:
    """Return a batch of the one `frame` (height, width), in native byte order."""
    return Batch(
        seq=np.array([seq], np.int64),
        ids=np.array([number], np.int64),
        arrays={"frame": native(frame)[None]},
    )


def pattern_batch(seq: int, ids: NDArray[Any], intensity: NDArray[Any]) -> Batch:
    """Return a batch of patterns `intensity` (n, n_bins), as float32; the first has `seq`."""
    return Batch(
        seq=np.arange(seq, seq + len(ids), dtype=np.int64),
        ids=np.asarray(ids, np.int64),
        arrays={"intensity": np.ascontiguousarray(intensity, np.float32)},
    )


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` in native byte order and C layout, copied only where it must be."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def check_same(run: RunStart, again: RunStart) -> None:
    """Check that a source which is to go on with `run` still says the same of it, now `again`.

    Raises
    ------
    PipelineError
        Its files are others by now, so that the items that were taken cannot be told by position.
    """
    for name in ("items", "expected", "digests"):
        before, now = getattr(run, name), getattr(again, name)
        if name == "digests":  # others may have been added
            before = {key: before.get(key) for key in now}
        if before != now:
            raise PipelineError(
                f"{again.source} has changed since the run began: {name} was {before}, is {now}"
            )
