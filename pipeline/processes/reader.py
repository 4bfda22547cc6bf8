"""Reads the source in a thread, so that a slow file does not keep the sockets waiting."""

import threading
from collections import deque
from collections.abc import Callable, Mapping

from phasewatch.pipeline.batch import Array, Batch, Failure
from phasewatch.pipeline.plugin import Source
from phasewatch.pipeline.transport.links import Wakeup
from phasewatch.pipeline.transport.ring import Ring

Item = Batch | Failure


class Reader:
    """What the source has given and nobody has taken: at most `limit` items, then it waits.

    It is stopped with one more: the one that it holds, which nobody else would count.

    A source that can decode into given memory is lent slots of `ring`; `wait`: it waits for room
    there, else it uses its own memory. `ended` turns true when the source is at its end; `error` is
    what it raised, if anything.
    """

    def __init__(
        self, source: Source, wakeup: Wakeup, ring: Ring, *, limit: int, wait: bool
    ) -> None:
        self._source, self.wakeup, self._limit = source, wakeup, limit
        self._ring, self._wait = ring, wait
        self._items: deque[Item] = deque()
        self._lent: list[range] = []
        self._own = 0  # batches in other memory that were given and may not be in the ring yet
        self._own_last = False
        self._room = threading.Condition()
        self._stopping = False
        self.ended = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)

    def start(self) -> None:
        """Begin to read; once."""
        if self._thread.ident is None and not self._stopping:
            lend: Callable[..., None] | None = getattr(self._source, "lend", None)
            if lend is not None:
                lend(self._allocate)
            self._thread.start()

    def take(self) -> Item | None:
        """Return the next item, None if there is none yet; what came before is in the ring."""
        with self._room:
            self._own -= self._own_last
            item = self._items.popleft() if self._items else None
            self._own_last = item is not None and self._in_own_memory(item)
            self._room.notify()
        return item

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

    def reading(self) -> bool:
        """Tell whether the thread is still in the source."""
        return self._thread.is_alive()

    @property
    def drained(self) -> bool:
        """Whether the source has ended and all it gave was taken."""
        return self.ended and not self._items

    def _allocate(self, n: int) -> Mapping[str, Array] | None:
        """Lend memory for at most `n` items, arrays (m, ...) by name; None if there is none."""
        if self._own:  # it waits for the slots that would be lent behind it, and they for it
            return None
        if self._wait:
            slots = self._ring.wait(n, go_on=lambda: not self._stopping)
        else:
            slots = self._ring.acquire(n)
        if not slots:
            return None
        self._lent.append(slots)
        return {name: a[slots.start : slots.stop] for name, a in self._ring.arrays.items()}

    def _read(self) -> None:
        try:
            for item in self._source:
                self._take_back(item)
                if item is not None:
                    self._put(item)
                if self._stopping:
                    break
        except BaseException as error:  # handed to the receiver, which reports it
            self.error = error
        self._take_back(None)
        self.ended = True
        self.wakeup.set()

    def _take_back(self, item: Item | None) -> None:
        """Free what was lent and is not in `item`: an item that could not be decoded."""
        used = self._ring.slots_of(item.arrays) if isinstance(item, Batch) else None
        for lent in self._lent:
            self._ring.release(slot for slot in lent if used is None or slot not in used)
        self._lent = []

    def _put(self, item: Item) -> None:
        with self._room:
            self._room.wait_for(lambda: self._stopping or len(self._items) < self._limit)
            self._items.append(item)  # also when it is stopped: another run may follow
            self._own += self._in_own_memory(item)
        self.wakeup.set()

    def _in_own_memory(self, item: Item) -> bool:
        return isinstance(item, Batch) and self._ring.slots_of(item.arrays) is None
