"""What flows through the chain: batches of items, and the items that failed.

``seq`` is the position in this run's stream, contiguous from 0, so that a gap can be counted;
``ids`` are the facility's train, pulse or frame numbers in whatever order they come; ``t_acq`` is
when, in ns UTC as the detector said, or ``None``: it is never invented.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError

Int64 = NDArray[np.int64]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Items of one run.

    Attributes
    ----------
    seq, ids
        (n,) int64.
    t_acq
        (n,) int64, ns UTC, or None where the detector gave none.
    arrays
        Each (n, ...): ``frame`` counts (n, height, width), ``intensity`` (n, n_bins) float32,
        ``probability`` (n, n_classes) float32, ``novelty`` (n,) float32, ...
    stamps
        CLOCK_MONOTONIC of each hop, each (n,) int64 ns; meaningful on one host only.
    packed
        What the frames were decoded from, by item (none: not known) and tile: see `Packing`. Only a
        source gives it, only the receiver keeps it.
    """

    seq: Int64
    ids: Int64
    t_acq: Int64 | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)
    stamps: Mapping[str, Int64] = field(default_factory=dict)
    packed: tuple[tuple[bytes, ...], ...] = ()

    def __post_init__(self) -> None:
        n = len(self.seq)
        columns = {"ids": self.ids, **self.arrays, **self.stamps}
        if self.t_acq is not None:
            columns["t_acq"] = self.t_acq
        for name, column in columns.items():
            if column.ndim == 0 or len(column) != n:
                raise PipelineError(f"batch array {name}: shape {column.shape} for {n} items")
        if self.packed and len(self.packed) != n:
            raise PipelineError(f"batch: {len(self.packed)} packed items of {n}")

    def __len__(self) -> int:
        return len(self.seq)

    def select(self, index: slice | Int64) -> "Batch":
        """Return the items at `index`, all columns alike."""
        return Batch(
            seq=self.seq[index],
            ids=self.ids[index],
            t_acq=None if self.t_acq is None else self.t_acq[index],
            arrays={k: v[index] for k, v in self.arrays.items()},
            stamps={k: v[index] for k, v in self.stamps.items()},
            packed=self._packed_at(index) if self.packed else (),
        )

    def _packed_at(self, index: slice | Int64) -> tuple[tuple[bytes, ...], ...]:
        if isinstance(index, slice):
            return self.packed[index]
        return tuple(self.packed[i] for i in index.tolist())

    def with_arrays(self, *, drop: Iterable[str] = (), **new: Array) -> "Batch":
        """Return this batch without the arrays `drop` and with the arrays `new`."""
        kept = {k: v for k, v in self.arrays.items() if k not in set(drop)}
        return Batch(self.seq, self.ids, self.t_acq, {**kept, **new}, self.stamps)

    def stamped(self, hop: str, t_ns: int) -> "Batch":
        """Return this batch with every item stamped at `hop` (CLOCK_MONOTONIC, ns)."""
        stamps = {**self.stamps, hop: np.full(len(self), t_ns, np.int64)}
        return Batch(
            self.seq, self.ids, self.t_acq, self.arrays, stamps
        )  # half of what replace takes


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches of one run that carry the same columns; of the stamps, those that all have.

    Raises
    ------
    PipelineError
        The batches carry different columns.
    """
    if len(batches) == 1:
        return batches[0]
    first = batches[0]

    if len({frozenset(b.arrays) for b in batches}) != 1:
        raise PipelineError("batches of one run carry different arrays")
    stamps = [name for name in first.stamps if all(name in b.stamps for b in batches)]
    t_acq = [b.t_acq for b in batches if b.t_acq is not None]
    if t_acq and len(t_acq) != len(batches):
        raise PipelineError("batches of one run: some have t_acq, some have not")
    return Batch(
        seq=np.concatenate([b.seq for b in batches]),
        ids=np.concatenate([b.ids for b in batches]),
        t_acq=np.concatenate(t_acq) if t_acq else None,
        arrays={k: np.concatenate([b.arrays[k] for b in batches]) for k in first.arrays},
        stamps={k: np.concatenate([b.stamps[k] for b in batches]) for k in stamps},
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that could not be processed: which, where and why (one line)."""

    seq: int
    id: int
    stage: str
    error: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """One item that the receiver gave up, and why."""

    seq: int
    id: int
    reason: str
