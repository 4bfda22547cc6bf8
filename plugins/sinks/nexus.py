"""The sink ``nexus``: one result file, readable while it is written (SWMR).

What is in it, and where, says `phasewatch.plugins.sinks.layout`.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sinks.layout import LINE, STAGE, create

RESERVE_BYTES = 16 << 20


def open_sink(*, path: str) -> "NexusFile":
    """Write the run to the new file `path`.

    Raises
    ------
    PipelineError
        The file exists (it is never overwritten), or its folder does not.
    """
    file = Path(path)
    if file.exists():
        raise PipelineError(
            f"file {file} exists and is not overwritten: move it or name another (--out)"
        )
    if not file.parent.is_dir():
        raise PipelineError(f"folder {file.parent} not found: cannot write {file.name}")
    return NexusFile(file)


class NexusFile:
    """Sink that writes one run to one NeXus file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: h5py.File | None = None
        self._events: list[Event] = []

    def start(self, run: RunStart) -> None:
        """Create the file with all it will ever hold, then let readers in."""
        if "intensity" not in run.items or "axis" not in run.constants:
            raise PipelineError(f"file {self._path}: the run carries no patterns to write")
        with self._writing():
            self._file = h5py.File(self._path, "x", libver="latest")
            self._columns = create(self._file, run)
            self._specs = {name: run.items[name] for name in self._columns if name in run.items}
            self._file.swmr_mode = True

    def batch(self, batch: Batch) -> None:
        """Append the items of `batch`."""
        n = len(batch)
        values = {"id": batch.ids, "seq": batch.seq}
        values["t_acq"] = np.full(n, -1, np.int64) if batch.t_acq is None else batch.t_acq
        for name, spec in self._specs.items():
            if name not in batch.arrays or batch.arrays[name].shape[1:] != spec.shape:
                raise PipelineError(
                    f"file {self._path}: items of shape {spec.shape} in {name!r} were announced, "
                    f"{getattr(batch.arrays.get(name), 'shape', None)} came"
                )
            values[name] = batch.arrays[name]
        if "variance" in values:
            values["variance"] = np.sqrt(values["variance"])
        self._check_room(sum(v.nbytes for v in values.values()))
        with self._writing():
            for name, dataset in self._columns.items():  # seq is the last
                _append(dataset, values[name])

    def failures(self, failures: Sequence[Failure]) -> None:
        """Append the items that failed."""
        with self._writing() as file:
            loss = file["entry/loss"]
            _append(loss["id"], np.array([f.id for f in failures], np.int64))
            _append(loss["stage"], _lines([f.stage for f in failures], STAGE))
            _append(loss["error"], _lines([f.error for f in failures], LINE))
            _append(loss["seq"], np.array([f.seq for f in failures], np.int64))

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None:
        """Write the dropped items to the loss table, as lost in the receiver."""
        self.failures([Failure(seq, i, "receiver", f"dropped: {reason}") for seq, i in items])

    def event(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)
        with self._writing() as file:
            if "track" in file["entry"]:
                _append(file["entry/track/event_log"], _lines([event.model_dump_json()], LINE))

    def stop(self, stop: RunStop) -> None:
        """Write what is known at the end."""
        with self._writing() as file:
            entry = file["entry"]
            entry["provenance/stop"][()] = stop.model_dump_json()
            entry["loss/table"][()] = stop.loss.model_dump_json()
            if "track" in entry:
                entry["track/zones"][()] = json.dumps([z.model_dump() for z in stop.zones])
                events = stop.events or tuple(self._events)
                entry["track/events"][()] = json.dumps([e.model_dump() for e in events])
                if stop.confidence is not None:
                    entry["track/confidence"][()] = stop.confidence
            file.flush()

    def close(self) -> None:
        """Close the file; what was written stays."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._writing(file):
                file.close()

    def _check_room(self, nbytes: int) -> None:
        """Stop while the file can still be closed in order; HDF5 cannot do that on a full disk."""
        free = shutil.disk_usage(self._path).free
        if free < nbytes + RESERVE_BYTES:
            raise PipelineError(
                f"file {self._path}: its disk is full ({free >> 20} MiB free, "
                f"{RESERVE_BYTES >> 20} MiB are kept to close it); what was written stays"
            )

    @contextmanager
    def _writing(self, file: h5py.File | None = None) -> Iterator[h5py.File]:
        """Hand out the file; turn what goes wrong in writing into one line."""
        try:
            yield file or self._file
        except (OSError, RuntimeError) as error:
            said = re.search(r"error message = '([^']*)'", str(error))  # of the system, in HDF5's
            text = said[1] if said else one_line(error)
            raise PipelineError(f"file {self._path} cannot be written: {text}") from None


def _append(dataset: h5py.Dataset, values: NDArray[Any]) -> None:
    n = len(dataset)
    dataset.resize(n + len(values), axis=0)
    dataset[n:] = values
    dataset.flush()


def _lines(texts: Sequence[str], dtype: np.dtype[Any]) -> NDArray[np.bytes_]:
    """Return `texts` as UTF-8, cut at a character where they are too long."""
    cut = [t.encode()[: dtype.itemsize].decode(errors="ignore").encode() for t in texts]
    return np.array(cut, dtype)
