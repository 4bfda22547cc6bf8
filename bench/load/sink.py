"""``type = "latency"``: keeps of every item its seq, its id and all its stamps, and nothing else.

The file is HDF5: ``times`` (n, columns) int64, its attribute ``columns`` names them: ``seq``,
``id``, the stamps as they came, and ``delivered``, when the batch reached this sink; stamps are ns
of CLOCK_MONOTONIC.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.plan import address
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.raw_socket import RawSocket

BLOCK = 8192  # rows held until they are written: at most 1 MB


def open_sink(*, path: str, answer: str = "") -> "LatencySink":
    """Write raw times to `path`; `answer`: folder of a load whose generator waits for answers."""
    return LatencySink(Path(path), answer)


class LatencySink:
    """Sink of times."""

    def __init__(
        self, path: Path, answer: str = "", clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._file = h5py.File(path, "w")
        self._back = RawSocket("push", address(Path(answer), "back")) if answer else None
        self._clock = clock
        self._columns: list[str] = []
        self._held = 0

    def start(self, run: RunStart) -> None:
        """Nothing is known of the stamps yet."""

    def batch(self, batch: Batch) -> None:
        """Keep the times of `batch`."""
        now = self._clock()
        self._answer(batch.ids)
        if not self._columns:
            self._begin(["seq", "id", *batch.stamps, "delivered"])
        columns = {"seq": batch.seq, "id": batch.ids, **batch.stamps}
        done = 0
        while done < len(batch):
            m = min(len(batch) - done, BLOCK - self._held)
            rows = self._rows[self._held : self._held + m]
            for i, name in enumerate(self._columns[:-1]):
                rows[:, i] = columns[name][done : done + m]
            rows[:, -1] = now
            self._held, done = self._held + m, done + m
            if self._held == BLOCK:
                self._write()

    def failures(self, failures: Sequence[Failure]) -> None:
        """Answer them: the generator must not wait for ever."""
        self._answer(np.array([f.id for f in failures], np.int64))

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None:
        """Answer them."""
        self._answer(np.array([i for _, i in items], np.int64))

    def event(self, event: Event) -> None:
        """Not kept."""

    def stop(self, stop: RunStop) -> None:
        """Write what is held."""
        self._write()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._write()
            self._file.close()
        if self._back is not None:
            self._back.close(linger_ms=1000)
            self._back = None

    def _answer(self, ids: NDArray[np.int64]) -> None:
        if self._back is not None and len(ids):
            self._back.offer([ids.tobytes()])

    def _begin(self, columns: list[str]) -> None:
        k = len(columns)
        self._columns = columns
        self._rows = np.empty((BLOCK, k), np.int64)
        self._times = self._file.create_dataset(
            "times", shape=(0, k), maxshape=(None, k), chunks=(BLOCK, k), dtype="i8"
        )
        self._times.attrs["columns"] = columns

    def _write(self) -> None:
        if self._held:
            n = len(self._times)
            self._times.resize(n + self._held, axis=0)
            self._times[n:] = self._rows[: self._held]
            self._file.flush()
            self._held = 0


def read_times(path: Path) -> dict[str, NDArray[np.int64]]:
    """Return the columns of a file of this sink, each (n,); none where nothing came.

    Raises
    ------
    PipelineError
        It is not such a file.
    """
    try:
        with h5py.File(path, "r") as file:
            if "times" not in file:
                return {}
            times = file["times"][:]
            return {str(c): times[:, i] for i, c in enumerate(file["times"].attrs["columns"])}
    except OSError as error:
        raise PipelineError(f"{path}: not a file of the latency sink ({error})") from None
