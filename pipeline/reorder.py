"""Restores the order of ``seq`` in a window bounded by count and age.

Each seq ends once: as an item released in order, or by an ending of another kind (it failed, was
dropped, was given up), in the same order. A second copy of a seq is ignored, so an item may be
computed twice.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from phasewatch.pipeline.batch import Batch, Dropped, Failure, concatenate
from phasewatch.pipeline.messages import MessageError

AT_ONCE = 1000  # endings in one release; a message with so many failures is below its limit


LIVE_WINDOW = 65536  # items
AHEAD = 1 << 22  # items that one can be before the others: 35 minutes of 2 kHz


def reorder(*, live: bool, wait_s: float) -> "Reorder":
    """Make one for a run.

    Lossless, the receiver bounds what is under way and sends again what does not come; live,
    nothing is waited for longer than `wait_s`, which is what it is worth.
    """
    return Reorder(
        window=LIVE_WINDOW if live else None, max_age_ns=int(wait_s * 1e9) if live else None
    )


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
        Every smaller seq has ended and was released.
    ignored
        Items that came a second time, or too late.
    row, longest_row
        Failed items in a row up to `next_seq`, and the most there have been.
    """

    def __init__(self, *, window: int | None = None, max_age_ns: int | None = None) -> None:
        self.next_seq = 0
        self.ignored = self.row = self.longest_row = 0
        self._window, self._max_age_ns = window, max_age_ns
        self._held: dict[int, Batch] = {}  # by the first seq of a run without gaps
        self._seqs: set[int] = set()  # of all items held
        self._endings: dict[int, Failure | Dropped] = {}
        self._blocked_since: int | None = None

    def __len__(self) -> int:
        return len(self._seqs)

    @property
    def end(self) -> int:
        """One more than the largest seq heard of."""
        heard = [*self._seqs, *self._endings]
        return max(heard, default=self.next_seq - 1) + 1

    def check(self, seqs: list[int]) -> None:
        """Refuse items that cannot be of this run.

        Raises
        ------
        MessageError
            There is one before the first, or `AHEAD` of what was released.
        """
        if seqs and (min(seqs) < 0 or max(seqs) - self.next_seq > AHEAD):
            raise MessageError(f"items {min(seqs)} to {max(seqs)} cannot be of this run")

    def add(self, batch: Batch) -> None:
        """Take in a batch, in whatever order its items are."""
        fresh = []
        for i, seq in enumerate(batch.seq.tolist()):
            if seq < self.next_seq or seq in self._seqs or seq in self._endings:
                self.ignored += 1
            else:
                fresh.append((seq, i))
                self._seqs.add(seq)
        if len(fresh) < len(batch) or any(a[0] + 1 != b[0] for a, b in pairwise(fresh)):
            fresh.sort()
            cuts = [k for k in range(1, len(fresh)) if fresh[k - 1][0] + 1 != fresh[k][0]]
            for first, stop in zip([0, *cuts], [*cuts, len(fresh)], strict=True):
                index = np.array([i for _, i in fresh[first:stop]], np.int64)
                if len(index):
                    self._held[fresh[first][0]] = batch.select(index)
        elif fresh:
            self._held[fresh[0][0]] = batch

    def end_items(self, endings: Iterable[Failure | Dropped]) -> None:
        """Do not wait for these items; what came or ended before stays as it is."""
        for ending in endings:
            if ending.seq >= self.next_seq and ending.seq not in self._seqs:
                self._endings.setdefault(ending.seq, ending)

    def skip(self, first: int) -> None:
        """Begin at `first`: what is below has been taken already."""
        self.next_seq = max(self.next_seq, first)
        for at in [at for at in self._held if at < first]:
            batch = self._held.pop(at)
            self._seqs.difference_update(batch.seq.tolist())
            self.add(batch)
        self._endings = {seq: e for seq, e in self._endings.items() if seq >= first}

    def release(self, now_ns: int) -> tuple[Batch | None, list[Failure | Dropped]]:
        """Return what has ended in order by now, at most about `AT_ONCE` items of it."""
        items, endings = self._take()
        if items or endings or not self._held:
            self._blocked_since = now_ns if self._held else None
        elif self._overdue(now_ns):
            first = min(min(self._held), min(self._endings, default=min(self._held)))
            text = "did not come within [runtime] reorder_wait_s"
            self.end_items([Failure(s, -1, "reorder", text) for s in range(self.next_seq, first)])
            return self.release(now_ns)
        elif self._blocked_since is None:
            self._blocked_since = now_ns
        return (concatenate(items) if items else None), endings

    def give_up(self, end: int, reason: str) -> None:
        """Wait for nothing below `end`: what has not come by now never will."""
        known = self._seqs | self._endings.keys()
        missing = [s for s in range(self.next_seq, end) if s not in known]
        self.end_items([Failure(s, -1, "run", reason) for s in missing])

    def _overdue(self, now_ns: int) -> bool:
        if self._window is not None and len(self._seqs) > self._window:
            return True
        if self._max_age_ns is None or self._blocked_since is None:
            return False
        return now_ns - self._blocked_since > self._max_age_ns

    def _take(self) -> tuple[list[Batch], list[Failure | Dropped]]:
        items: list[Batch] = []
        endings: list[Failure | Dropped] = []
        until = self.next_seq + AT_ONCE
        while self.next_seq < until:
            if self.next_seq in self._held:
                batch = self._held.pop(self.next_seq)
                items.append(batch)
                self._seqs.difference_update(range(self.next_seq, self.next_seq + len(batch)))
                self.next_seq += len(batch)
                self.row = 0
            elif self.next_seq in self._endings:
                ending = self._endings.pop(self.next_seq)
                endings.append(ending)
                self.row += isinstance(ending, Failure)
                self.longest_row = max(self.longest_row, self.row)
                self.next_seq += 1
            else:
                break
        return items, endings
