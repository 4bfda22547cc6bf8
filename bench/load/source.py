"""``load:FOLDER``: the items of a load, taken from its store when the generator announces them.

Stamps (CLOCK_MONOTONIC, ns): ``due``, when the item was due; ``announced``, when the generator said
so. Where the receiver lends room in its ring, items are copied straight into it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.plan import DONE, END, GO, ROW, Load, address
from phasewatch.bench.load.store import read_store
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import RunStart
from phasewatch.plugins.raw_socket import RawSocket

POLL_MS = 100
Allocate = Callable[[int], Mapping[str, NDArray[Any]] | None]


def open_source(target: str) -> "LoadSource":
    """Take the items that the load generator of the folder `target` announces."""
    return LoadSource(Path(target))


class LoadSource:
    """Source of one load; ids are the numbers of the announcements, from 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._load = Load.read(folder)
        self._store = read_store(Path(self._load.store))
        self._allocate: Allocate = lambda n: None
        self._sockets: list[RawSocket] = []

    def start(self) -> RunStart:
        """Describe the run that the store was filled from, with the load's number of items."""
        load, run = self._load, self._store.run
        settings = {**run.settings, "load": {"scenario": load.scenario, "rate_hz": load.rate_hz}}
        return run.evolve(source=f"load: {run.source}"[:4096], expected=load.n, settings=settings)

    def lend(self, allocate: Allocate) -> None:
        """Copy items from now on into what ``allocate(n)`` gives: arrays (m <= n, ...) or None."""
        self._allocate = allocate

    def __iter__(self) -> Iterator[Batch | None]:
        """Yield what was announced, in batches of what is there, until the load ends."""
        announced = RawSocket("pull", address(self._folder, "announce"))
        back = RawSocket("push", address(self._folder, "back"))
        self._sockets = [announced, back]
        back.offer([GO])
        waiting = np.empty((0, len(ROW)), np.int64)
        ended = False
        while self._sockets and not (ended and not len(waiting)):
            # What has come by now goes on together: a late chain gets larger batches.
            while not ended and len(waiting) < self._load.at_once:
                message = announced.receive(0 if len(waiting) else POLL_MS)
                if message is None:
                    break
                ended = message == [END]
                if not ended:
                    fresh = np.frombuffer(message[0], np.int64).reshape(-1, len(ROW))
                    waiting = np.concatenate([waiting, fresh])
            if not len(waiting):
                yield None
                continue
            batch = self._batch(waiting[: self._load.at_once])
            waiting = waiting[len(batch) :]
            yield batch
        if self._sockets:
            back.offer([DONE])
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.close(linger_ms=1000)

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        lent = self._allocate(len(rows))
        if lent is None or not all(map(len, lent.values())):
            lent = {k: np.empty((len(rows), *a.shape[1:]), a.dtype) for k, a in self._arrays()}
        rows = rows[: min(len(a) for a in lent.values())]
        ids, due, index, sent = (np.ascontiguousarray(column) for column in rows.T)
        return Batch(
            seq=ids,
            ids=ids,
            arrays=self._store.copy(index, lent),
            stamps={"due": due, "announced": sent},
        )

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        return list(self._store.arrays.items())
