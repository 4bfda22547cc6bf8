"""The items of a load, in memory that all processes of this host share.

A detector's receiver would have its frames in such a buffer. A store is a folder (in /dev/shm where
there is one) of one ``.npy`` file per array, written once and mapped by who reads it, and
``start.json`` with the start of the run they came from.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source

START = "start.json"
PAGE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """The start of a run, and `n` of its items: arrays of (n, ...), mapped read-only."""

    run: RunStart
    arrays: Mapping[str, NDArray[Any]]

    @property
    def n(self) -> int:
        """How many items there are."""
        return len(next(iter(self.arrays.values())))

    def copy(
        self, index: NDArray[np.int64], out: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Copy the items at `index` (m,) to the first rows of the arrays in `out`; return these."""
        m = len(index)
        rows = {name: a if len(a := out[name]) == m else a[:m] for name in self.arrays}
        for name, array in self.arrays.items():
            # mode "clip": with "raise" numpy copies twice
            np.take(array, index, axis=0, out=rows[name], mode="clip")
        return rows


def write_store(run: RunStart, batch: Batch, folder: Path) -> None:
    """Write the items of `batch`, which are of the run that `run` describes."""
    folder.mkdir(parents=True)
    for kind, arrays in (("array", batch.arrays), ("constant", run.constants)):
        for name, array in arrays.items():
            np.save(folder / f"{kind}-{name}.npy", array)
    names = {"arrays": sorted(batch.arrays), "constants": sorted(run.constants)}
    document = {"run": run.model_dump(mode="json"), **names}
    (folder / START).write_text(json.dumps(document), encoding="utf-8")


def read_store(folder: Path) -> Store:
    """Map what `write_store` wrote.

    Raises
    ------
    PipelineError
        There is no store.
    """
    try:
        document = json.loads((folder / START).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{folder / START}: not a store of items ({error})") from None
    constants = {name: np.load(folder / f"constant-{name}.npy") for name in document["constants"]}
    run = RunStart.model_validate({**document["run"], "constants": constants}, strict=False)
    arrays = {n: np.load(folder / f"array-{n}.npy", mmap_mode="r") for n in document["arrays"]}
    for array in arrays.values():  # touched now: the first copy of a frame else takes twice as long
        array.reshape(-1).view(np.uint8)[::PAGE].max(initial=0)
    return Store(run, arrays)


def gather(
    source: Source, limit: int, progress: Callable[[int], None] = lambda n: None
) -> tuple[RunStart, Batch]:
    """Return the start of `source` and its first items, `limit` at most; close it.

    Raises
    ------
    PipelineError
        It has no readable item.
    """
    parts: list[Batch] = []
    n = 0
    try:
        run = source.start()
        for item in source:
            if isinstance(item, Batch) and len(item):
                parts.append(item)
                n += len(item)
                progress(min(n, limit))
            if n >= limit:
                break
    finally:
        source.close()
    if not parts:
        raise PipelineError(f"source {run.source}: gave no item that a load could be made of")
    n = min(n, limit)
    arrays = {name: np.concatenate([part.arrays[name] for part in parts])[:n] for name in run.items}
    seq = np.arange(n, dtype=np.int64)
    return run, Batch(seq=seq, ids=seq, arrays=arrays)
