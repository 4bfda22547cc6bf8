"""What the receiver answers for: every item until it has been taken at the end of the chain.

Pure; the receiver does the sending. Items are known by `seq` and lie in slots. They go, some at
once where they lie side by side, to a worker that asked for them (a credit each), oldest first, and
go again where a worker was lost or nothing was heard of them: who comes later sees to it that an
item counts once. A worker that is overdue and has not said a word since gets no more while others
have something to do: a stopped one, or one that asks and never takes, holds up nobody. What ended
before it was sent (it could not be read, it was dropped) is kept too, until whoever keeps the books
has said that he knows. Of what has ended the last few are kept where a model looks back at them:
one that is started again must see them first.
"""

from collections import deque
from dataclasses import dataclass
from itertools import chain

from phasewatch.pipeline.batch import Dropped, Failure


@dataclass(frozen=True, slots=True)
class Order:
    """Send the `n` items from `seq` on, in the slots from `slot` on, to `worker`."""

    worker: bytes
    seq: int
    slot: int
    n: int


class Custody:
    """Items, credits and acknowledgements of one run.

    At most `at_once` items go in one order; orders that are not full, one every `pace_ns`. `keep`
    items are kept after they have ended.

    Attributes
    ----------
    acknowledged
        Every smaller seq has ended.
    resent
        Items that were sent more than once.
    """

    def __init__(self, *, at_once: int, pace_ns: int = 0, keep: int = 0) -> None:
        self._at_once, self._pace_ns, self._keep = at_once, pace_ns, keep
        self._next_ns = 0
        self._slots: dict[int, int] = {}
        self._unsent: deque[int] = deque()
        self._asking: deque[bytes] = deque()
        self._flying: dict[int, tuple[Order, int]] = {}
        self._unheard: dict[bytes, set[int]] = {}  # what went to it since its last word, by seq
        self._late: set[bytes] = set()
        self._endings: dict[int, Failure | Dropped] = {}
        self._rewound = -1  # what was acknowledged when all was sent again
        self.acknowledged = 0
        self.resent = 0

    @property
    def unsent(self) -> int:
        """Items that wait to be sent."""
        return len(self._unsent)

    @property
    def flying(self) -> int:
        """Items that were sent, and nothing was heard of them."""
        return sum(order.n for order, _ in self._flying.values())

    @property
    def held(self) -> int:
        """Items that are answered for."""
        return sum(seq >= self.acknowledged for seq in self._slots)

    @property
    def first(self) -> int:
        """The first item that is kept, or would be: it or a later one is sent again."""
        return max(0, self.acknowledged - self._keep)

    @property
    def oldest_slot(self) -> int | None:
        """Where the oldest item that is answered for lies."""
        return next((slot for seq, slot in self._slots.items() if seq >= self.acknowledged), None)

    @property
    def endings(self) -> list[Failure | Dropped]:
        """What ended here and is kept, in order of seq."""
        return [self._endings[seq] for seq in sorted(self._endings)]

    def take(self, seq: int, slots: range) -> None:
        """Answer for the items from `seq` on."""
        self._slots.update(zip(range(seq, seq + len(slots)), slots, strict=True))
        self._unsent.extend(range(seq, seq + len(slots)))

    def end(self, ending: Failure | Dropped) -> None:
        """Keep an ending."""
        self._endings[ending.seq] = ending

    def drop_oldest(self) -> tuple[int, int] | None:
        """Give up the oldest unsent item; return its seq and slot, None if there is none."""
        seq = next((seq for seq in self._unsent if seq >= self.acknowledged), None)
        if seq is None:
            return None
        self._unsent.remove(seq)
        return seq, self._slots.pop(seq)

    def credit(self, worker: bytes, n: int, *, afresh: bool = False) -> None:
        """Note that `worker` asks for `n` more orders; `afresh`: for `n` in all."""
        if afresh:
            self._asking = deque(w for w in self._asking if w != worker)
        self._asking.extend([worker] * n)
        self._unheard.pop(worker, None)
        self._late.discard(worker)

    def wait_ns(self, now_ns: int) -> int | None:
        """Return how long to wait until an order is due, 0 when one is; None with nothing to send.

        Orders go out at the pace, or when they are full: at high rates items go together.
        """
        if not self._unsent:
            return None
        return 0 if len(self._unsent) >= self._at_once else max(0, self._next_ns - now_ns)

    def next(self, now_ns: int) -> Order | None:
        """Return what goes next; None while nothing can go."""
        if not self._asking or self.wait_ns(now_ns) != 0:
            return None
        worker = self._who()
        if worker is None:
            return None
        self._asking.remove(worker)
        others = len(set(self._asking) - {worker})  # who else is idle gets a share
        most = min(self._at_once, -(-len(self._unsent) // (others + 1)))
        seq = self._unsent.popleft()
        slot, n = self._slots[seq], 1
        while n < most and self._unsent and self._unsent[0] == seq + n:
            if self._slots[seq + n] != slot + n:
                break
            self._unsent.popleft()
            n += 1
        self._next_ns = now_ns + self._pace_ns
        order = Order(worker, seq, slot, n)
        self._flying[seq] = order, now_ns
        self._unheard.setdefault(worker, set()).add(seq)
        return order

    def acknowledge(self, seq: int) -> list[int]:
        """Note that every item with a smaller seq has ended; return the slots that are free."""
        free = []
        before = self.first
        self.acknowledged = max(self.acknowledged, seq)
        for ended in range(before, self.first):
            self._endings.pop(ended, None)
            slot = self._slots.pop(ended, None)
            if slot is not None:
                free.append(slot)
        while self._unsent and self._unsent[0] < self.first:
            self._unsent.popleft()
        # What was sent a second time for who looks back has come to him when something new ends.
        done = self.acknowledged if self.acknowledged > self._rewound else self.first
        for first in [f for f, (order, _) in self._flying.items() if f + order.n <= done]:
            del self._flying[first]
        return free

    def lost(self, worker: bytes) -> int:
        """Send again what `worker` was sent, and nothing more to it; return how many items."""
        self._asking = deque(w for w in self._asking if w != worker)
        self._unheard.pop(worker, None)
        self._late.discard(worker)
        return self._again([f for f, (order, _) in self._flying.items() if order.worker == worker])

    def overdue(self, before_ns: int) -> int:
        """Send again what was sent before `before_ns`; return how many items."""
        late = {f: order for f, (order, sent) in self._flying.items() if sent < before_ns}
        for first, order in late.items():
            if first in self._unheard.get(order.worker, ()):
                self._late.add(order.worker)
        return self._again(list(late))

    def all_lost(self) -> int:
        """Send everything again, also what is only kept; return how many items."""
        self._flying.clear()
        self._rewound = self.acknowledged
        sent = len(self._slots) - len(self._unsent)
        self._unsent = deque(sorted(self._slots))
        self.resent += sent
        return sent

    def _who(self) -> bytes | None:
        """Return the first that asks and is not late; who is late only where nobody is at work."""
        if not self._late:
            return self._asking[0]
        worker = next((w for w in self._asking if w not in self._late), None)
        busy = any(order.worker not in self._late for order, _ in self._flying.values())
        return self._asking[0] if worker is None and not busy else worker

    def _again(self, flights: list[int]) -> int:
        seqs: set[int] = set()
        for first in flights:
            order, _ = self._flying.pop(first)
            seqs.update(s for s in range(first, first + order.n) if s in self._slots)
        if seqs:
            self._unsent = deque(sorted(seqs.union(chain(self._unsent))))
        self.resent += len(seqs)
        return len(seqs)
