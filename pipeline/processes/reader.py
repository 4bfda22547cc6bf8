"""Reads the source in a thread, so that a slow file does not keep the sockets waiting."""

import threading
from collections import deque

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.plugin import Source
from phasewatch.pipeline.transport.links import Wakeup

Item = Batch | Failure


class Reader:
    """What the source has given and nobody has taken: at most `limit` items, then it waits.

    `ended` turns true when the source is at its end; `error` is what it raised, if anything.
    """

    def __init__(self, source: Source, wakeup: Wakeup, *, limit: int) -> None:
        self._source, self.wakeup, self._limit = source, wakeup, limit
        self._items: deque[Item] = deque()
        self._room = threading.Condition()
        self._stopping = False
        self.ended = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self) -> list[Item]:
        """Return what came since the last call."""
        with self._room:
            items, self._items = list(self._items), deque()
            self._room.notify()
        return items

    def stop(self) -> None:
        """Read no further; what was read stays to be taken."""
        with self._room:
            self._stopping = True
            self._room.notify()
        if self._thread.ident is None:
            self.ended = True

    def join(self, *, timeout_s: float) -> None:
        """Wait for the thread, after `stop` or the end."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def drained(self) -> bool:
        """Whether the source has ended and all it gave was taken."""
        return self.ended and not self._items

    def _read(self) -> None:
        try:
            for item in self._source:
                if item is not None and not self._put(item):
                    break
                if self._stopping:
                    break
        except BaseException as error:  # handed to the receiver, which reports it
            self.error = error
        self.ended = True
        self.wakeup.set()

    def _put(self, item: Item) -> bool:
        with self._room:
            self._room.wait_for(lambda: self._stopping or len(self._items) < self._limit)
            if self._stopping:
                return False
            self._items.append(item)
        self.wakeup.set()
        return True
