"""Collects batches into larger ones, by size and by age. Pure; the clock is passed in."""

from phasewatch.pipeline.batch import Batch, concatenate


class Batcher:
    """Holds batches until there are `max_items` items or the oldest has waited `max_wait_ns`."""

    def __init__(self, *, max_items: int, max_wait_ns: int) -> None:
        self._max_items, self._max_wait_ns = max_items, max_wait_ns
        self._held: list[Batch] = []
        self._since = 0

    def __len__(self) -> int:
        return sum(len(b) for b in self._held)

    def add(self, batch: Batch, now_ns: int) -> None:
        """Take in `batch`."""
        if not self._held:
            self._since = now_ns
        self._held.append(batch)

    def wait_ns(self, now_ns: int) -> int | None:
        """Return how long to wait for more, 0 when due; None when nothing is held."""
        if not self._held:
            return None
        if len(self) >= self._max_items:
            return 0
        return max(0, self._since + self._max_wait_ns - now_ns)

    def take(self) -> list[Batch]:
        """Return what is held, in batches of at most `max_items` items."""
        if not self._held:
            return []
        whole, self._held = concatenate(self._held), []
        step = self._max_items
        return [whole.select(slice(i, i + step)) for i in range(0, len(whole), step)]
