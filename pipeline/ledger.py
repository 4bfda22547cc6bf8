"""The loss table: where each received item ended, exactly once, and which ids never came."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.documents import FailureKind, Loss
from phasewatch.pipeline.errors import PipelineError

MAX_KINDS = 20
MAX_GAP = 1 << 32
FEW = 8  # ids that are faster looked at one by one


class Ledger:
    """Counts the endings of items; `Loss` is its fair copy."""

    def __init__(self) -> None:
        self.classified = 0
        self.failed = 0
        self.dropped: Counter[str] = Counter()
        self._kinds: dict[tuple[str, str], list[Any]] = {}  # error, first seq, how many

    @property
    def ended(self) -> int:
        """How many items have ended, in whichever way."""
        return self.classified + self.failed + sum(self.dropped.values())

    def classify(self, n: int) -> None:
        """Count `n` items that reached the end of the chain."""
        self.classified += n

    def fail(self, failures: Sequence[Failure]) -> None:
        """Count `failures`."""
        self.failed += len(failures)
        for f in failures:
            key = f.stage, re.sub(r"\d+", "#", f.error)
            if key in self._kinds or len(self._kinds) < MAX_KINDS:
                self._kinds.setdefault(key, [f.error, f.seq, 0])[2] += 1

    @property
    def failures(self) -> tuple[FailureKind, ...]:
        """The failures by kind, at most `MAX_KINDS` of them."""
        return tuple(
            FailureKind(stage=stage, error=error, n=n, first_seq=seq)
            for (stage, _), (error, seq, n) in self._kinds.items()
        )

    def drop(self, n: int, reason: str) -> None:
        """Count `n` items that the receiver dropped."""
        self.dropped[reason] += n

    def dump(self) -> dict[str, Any]:
        """Return all sums as plain values, for `load`."""
        kinds = [(*key, *kind) for key, kind in self._kinds.items()]
        counts = {"classified": self.classified, "failed": self.failed}
        return {**counts, "dropped": dict(self.dropped), "kinds": kinds}

    @classmethod
    def load(cls, sums: dict[str, Any]) -> "Ledger":
        """Return the ledger that `dump` said."""
        ledger = cls()
        ledger.classified, ledger.failed = sums["classified"], sums["failed"]
        ledger.dropped = Counter(sums["dropped"])
        ledger._kinds = {(stage, key): kind for stage, key, *kind in sums["kinds"]}
        return ledger

    def loss(self, *, received: int, missed: int, expected: int | None, whole: bool) -> Loss:
        """Return the loss table.

        Where the source said how many items to expect, those that did not come are missed if the
        `whole` run was read, else not read; where it did not, `missed`, the gaps in the ids, is all
        that is known.

        Raises
        ------
        PipelineError
            The invariant does not hold: an item ended twice or not at all.
        """
        if self.ended != received:
            raise PipelineError(f"loss table: {received} items received, {self.ended} ended")
        absent = 0 if expected is None else max(0, expected - received)
        if expected is not None:
            missed = absent if whole else min(missed, absent)
        return Loss(
            expected=received + max(missed, absent),
            received=received,
            missed=missed,
            classified=self.classified,
            dropped=dict(sorted(self.dropped.items())),
            failed=self.failed,
            not_read=max(0, absent - missed),
        )


class Gaps:
    """Counts the ids that are missing from a stream whose ids should be consecutive.

    Ids may come late or twice. At most `limit` gaps are remembered; ids of older gaps that come
    after all are counted as repeated.
    """

    def __init__(self, limit: int = 4096, *, missed: int = 0, last: int | None = None) -> None:
        self.missed = missed
        self.repeated = 0
        self._last = last
        self._open: dict[int, int] = {}
        self._limit = limit

    @property
    def last(self) -> int | None:
        """The highest id so far; with `missed` all that a new count needs to go on from here."""
        return self._last

    def add(self, ids: NDArray[np.int64]) -> None:
        """Take in the next ids, (n,)."""
        if self._last is not None and len(ids) > FEW and self._is_next(ids):
            self._last = int(ids[-1])
            return
        for i in ids.tolist():
            if self._last is None or i == self._last + 1:
                self._last = i
            elif i - self._last > MAX_GAP:
                self._last = i  # numbered anew: no stream has lost so many
            elif i > self._last:
                self.missed += i - self._last - 1
                self._open[self._last + 1] = i
                self._last = i
                if len(self._open) > self._limit:
                    del self._open[next(iter(self._open))]
            else:
                self._late(i)

    def _is_next(self, ids: NDArray[np.int64]) -> bool:
        return ids[0] - 1 == self._last and bool(np.all(np.diff(ids) == 1))

    def _late(self, i: int) -> None:
        for first, end in self._open.items():
            if first <= i < end:
                del self._open[first]
                if first < i:
                    self._open[first] = i
                if i + 1 < end:
                    self._open[i + 1] = end
                self.missed -= 1
                return
        self.repeated += 1
