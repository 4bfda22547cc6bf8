"""Restores the order of ``seq`` in a window bounded by count and age.

Each seq ends once: released in order, or passed over because it failed, was dropped or was given
up. A second copy of a seq is ignored, so a batch may be computed twice.
"""

from collections.abc import Iterable

from phasewatch.pipeline.batch import Batch, concatenate


class Reorder:
    """Holds back what is early.

    Parameters
    ----------
    window
        Most items held back; one more, and the missing seq is given up. None: no such limit, where
        the number of items under way is bounded elsewhere.
    max_age_ns
        How long a missing seq is waited for, counted from when a later one came. None: for ever.

    Attributes
    ----------
    next_seq
        Every smaller seq has ended.
    ignored
        Items that came a second time, or too late.
    failed_in_a_row
        The longest row of failed items so far, in order of seq.
    """

    def __init__(self, *, window: int | None = None, max_age_ns: int | None = None) -> None:
        self.next_seq = 0
        self.ignored = 0
        self.failed_in_a_row = 0
        self._window, self._max_age_ns = window, max_age_ns
        self._held: dict[int, Batch] = {}
        self._passed: dict[int, bool] = {}
        self._row = 0
        self._blocked_since: int | None = None

    def __len__(self) -> int:
        return len(self._held)

    @property
    def end(self) -> int:
        """One more than the largest seq heard of."""
        return max(self._held.keys() | self._passed, default=self.next_seq - 1) + 1

    def add(self, batch: Batch) -> None:
        """Take in a batch, in whatever order its items are."""
        for i, seq in enumerate(batch.seq.tolist()):
            if seq < self.next_seq or seq in self._held or seq in self._passed:
                self.ignored += 1
            else:
                self._held[seq] = batch.select(slice(i, i + 1))

    def pass_over(self, seqs: Iterable[int], *, failed: bool) -> list[int]:
        """Do not wait for `seqs`; return those of them that had not ended before."""
        fresh = [s for s in dict.fromkeys(seqs) if s >= self.next_seq and s not in self._passed]
        fresh = [s for s in fresh if s not in self._held]
        self._passed |= dict.fromkeys(fresh, failed)
        return fresh

    def release(self, now_ns: int) -> tuple[Batch | None, list[int]]:
        """Return what is in order by now, and the seqs that are given up."""
        given_up: list[int] = []
        ready = self._take()
        if ready or not self._held:
            self._blocked_since = None
        while self._held and self._overdue(now_ns):
            first = min(self._held.keys() | self._passed)
            given_up += range(self.next_seq, first)
            self._row += first - self.next_seq
            self.failed_in_a_row = max(self.failed_in_a_row, self._row)
            self.next_seq = first
            self._blocked_since = None
            ready += self._take()
        if self._held and self._blocked_since is None:
            self._blocked_since = now_ns
        return (concatenate(ready) if ready else None), given_up

    def finish(self, end: int) -> tuple[Batch | None, list[int]]:
        """Return what is held below seq `end`, and what below it never came."""
        given_up = [
            s for s in range(self.next_seq, end) if s not in self._held and s not in self._passed
        ]
        self._passed |= dict.fromkeys(given_up, True)
        ready = self._take()
        return (concatenate(ready) if ready else None), given_up

    def _overdue(self, now_ns: int) -> bool:
        if self._window is not None and len(self._held) > self._window:
            return True
        if self._max_age_ns is None or self._blocked_since is None:
            return False
        return now_ns - self._blocked_since > self._max_age_ns

    def _take(self) -> list[Batch]:
        ready = []
        while True:
            if self.next_seq in self._held:
                ready.append(self._held.pop(self.next_seq))
                self._row = 0
            elif self.next_seq in self._passed:
                self._row += self._passed.pop(self.next_seq)
                self.failed_in_a_row = max(self.failed_in_a_row, self._row)
            else:
                return ready
            self.next_seq += 1
