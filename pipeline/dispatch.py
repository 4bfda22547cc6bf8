"""Who gets the next batch: a worker that asked for it. Pure; the receiver does the sending.

Unsent batches wait in a queue of at most `queue` batches. When it is full, a source that can wait
does (lossless), else the oldest unsent batch is dropped (live). At most `in_flight` batches are on
their way: sent, but not yet acknowledged by the tracker.
"""

from collections import deque

from phasewatch.pipeline.batch import Batch


class Dispatcher:
    """Batches, credits and acknowledgements of one run."""

    def __init__(self, *, queue: int, in_flight: int) -> None:
        self._queue_limit, self._in_flight_limit = queue, in_flight
        self._unsent: deque[Batch] = deque()
        self._asking: deque[bytes] = deque()
        self._flying: deque[int] = deque()
        self.sent = 0

    @property
    def queued(self) -> int:
        """Batches not yet sent."""
        return len(self._unsent)

    @property
    def in_flight(self) -> int:
        """Batches sent and not yet acknowledged."""
        return len(self._flying)

    @property
    def full(self) -> bool:
        """Whether one more batch would be over the limit."""
        return len(self._unsent) >= self._queue_limit

    def offer(self, batch: Batch) -> None:
        """Queue `batch`."""
        self._unsent.append(batch)

    def overflow(self) -> list[Batch]:
        """Take what is over the limit out of the queue, oldest first."""
        over = len(self._unsent) - self._queue_limit
        return [self._unsent.popleft() for _ in range(over)]

    def credit(self, worker: bytes, n: int) -> None:
        """Note that `worker` asks for `n` more batches."""
        self._asking.extend([worker] * n)

    def acknowledge(self, seq: int) -> None:
        """Note that every item with a smaller seq has ended."""
        while self._flying and self._flying[0] < seq:
            self._flying.popleft()

    def next(self) -> tuple[bytes, Batch] | None:
        """Return the next batch and the worker it goes to; None while it cannot go."""
        if not self._unsent or not self._asking or len(self._flying) >= self._in_flight_limit:
            return None
        batch = self._unsent.popleft()
        self._flying.append(int(batch.seq[-1]))
        self.sent += len(batch)
        return self._asking.popleft(), batch
