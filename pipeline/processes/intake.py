"""From the source into the ring: numbers what comes, checks it, writes it once, answers for it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from phasewatch.pipeline.batch import Batch, Dropped, Failure, Int64
from phasewatch.pipeline.custody import Custody, Order
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.ledger import Gaps
from phasewatch.pipeline.stage import Conform, isolate
from phasewatch.pipeline.transport.ring import Ring

LATE = "ring full"
DIED = "lost with the receiver"


def resume_at(ring: Ring) -> int:
    """Return where a source that can goes on: after the last item that an earlier receiver kept.

    What it had numbered, but found no room for, comes again.
    """
    last = int(max(ring.seq[ring.owed], default=-1))
    first = max(ring.tally("acknowledged"), last + 1)
    ring.note_tally(received=min(first, ring.tally("received")))
    return first


class Intake:
    """Items of one run from the source to the custody of the receiver.

    `tell` is called with endings: items that go nowhere. `live`: where the ring is full, the oldest
    unsent item is dropped. `keeps_packed`: what items were decoded from is kept while they are
    held, where the source gives it.
    """

    def __init__(
        self,
        run: RunStart,
        ring: Ring,
        custody: Custody,
        tell: Callable[[list[Failure | Dropped]], None],
        *,
        live: bool,
    ) -> None:
        self._ring, self._custody, self._tell, self._live = ring, custody, tell, live
        self._conform = Conform(run)
        self.received = ring.tally("received")
        last = ring.tally("last_id") if self.received else None
        self.gaps = Gaps(missed=ring.tally("missed"), last=last)
        self._pending: Batch | None = None
        self._stamps: dict[str, Int64] = {"received": ring.received}
        self._committed = False
        self._packed: dict[int, tuple[bytes, ...]] = {}  # by slot
        self.keeps_packed = False

    @property
    def idle(self) -> bool:
        """Whether nothing waits for room."""
        return self._pending is None

    def recover(self) -> None:
        """Take over what an earlier receiver held; what it cannot have kept has failed."""
        self._custody.acknowledge(self._ring.tally("acknowledged"))
        owed = self._ring.owed
        # Committed, but the tally was not written any more.
        late = owed[self._ring.seq[owed] >= self.received]
        self.gaps.add(self._ring.id[late])
        self.received += len(late)
        kept = set()
        for slot in owed.tolist():
            seq = int(self._ring.seq[slot])
            if seq < self._custody.first:
                self._ring.release([slot])
                continue
            kept.add(seq)
            self._custody.take(seq, range(slot, slot + 1))
        lost = [
            Failure(seq, -1, "receiver", DIED)
            for seq in range(self._custody.first, self.received)
            if seq not in kept
        ]
        self._note()
        self._end(list(lost))

    def add(self, item: Batch | Failure, now_ns: int) -> None:
        """Take in and number `item`, as far as there is room; not before `idle`."""
        first = self.received
        if isinstance(item, Failure):
            self.gaps.add(np.array([item.id]))
            self.received += 1
            self._note()
            self._end([replace(item, seq=first)])
            return
        if len(item) == 0:
            return
        self.gaps.add(item.ids)
        self.received += len(item)
        stamp = np.full(len(item), now_ns, np.int64)
        numbered = Batch(
            seq=np.arange(first, self.received),
            ids=item.ids,
            t_acq=item.t_acq,
            arrays=item.arrays,
            stamps={**item.stamps, "received": stamp},
            packed=item.packed,
        )
        good, bad = isolate("source", self._conform, numbered)
        if bad:
            self._end(list(bad))
            lent = self._ring.slots_of(item.arrays) or range(0)
            kept = (self._ring.slots_of(good.arrays) if good is not None else None) or range(0)
            self._ring.release(slot for slot in lent if slot not in kept)
        self._pending = good
        self.place()
        self._note()

    def place(self) -> None:
        """Write what waits for room into the ring, as far as there is room by now."""
        while (batch := self._pending) is not None:
            slots = self._ring.slots_of(batch.arrays)
            if slots is None:
                slots = self._room(len(batch))
                if not slots:
                    if not self._live:
                        return
                    self._drop(batch.select(slice(0, 1)))
                    self._pending = batch.select(slice(1, None)) if len(batch) > 1 else None
                    continue
                for name, array in batch.arrays.items():
                    self._ring.arrays[name][slots.start : slots.stop] = array[: len(slots)]
            if len(slots) == len(batch):
                self._commit(batch, slots)
                self._pending = None
                return
            self._commit(batch.select(slice(0, len(slots))), slots)
            self._pending = batch.select(slice(len(slots), None))

    def acknowledge(self, seq: int) -> None:
        """Free what has ended."""
        free = self._custody.acknowledge(seq)
        for slot in free:
            self._packed.pop(slot, None)
        self._ring.release(free)
        self._ring.note_tally(acknowledged=self._custody.acknowledged)

    def fetch(self, order: Order) -> Batch:
        """Return the items of `order`, views of the ring."""
        slots = slice(order.slot, order.slot + order.n)
        return Batch(
            seq=np.arange(order.seq, order.seq + order.n),
            ids=self._ring.id[slots],
            t_acq=self._ring.t_acq[slots] if self._ring.tally("timed") else None,
            arrays={name: array[slots] for name, array in self._ring.arrays.items()},
            stamps={name: column[slots] for name, column in self._stamps.items()},
        )

    def packed(self, order: Order) -> list[tuple[bytes, ...]] | None:
        """Return what the items of `order` were decoded from; None where it is not had of all."""
        chunks = [self._packed.get(order.slot + k, ()) for k in range(order.n)]
        return chunks if all(chunks) else None

    def age_ns(self, now_ns: int) -> int:
        """Return how long ago the oldest item that is held was received."""
        slot = self._custody.oldest_slot
        return 0 if slot is None else now_ns - int(self._ring.received[slot])

    def _room(self, n: int) -> range:
        slots = self._ring.acquire(n)
        if not slots and self._live and (oldest := self._custody.drop_oldest()) is not None:
            seq, slot = oldest
            self._end([Dropped(seq, int(self._ring.id[slot]), LATE)])
            self._ring.release([slot])
            slots = self._ring.acquire(n)
        return slots

    def _drop(self, batch: Batch) -> None:
        """Drop what has no room though nothing is unsent."""
        self._end([Dropped(int(batch.seq[0]), int(batch.ids[0]), LATE)])

    def _commit(self, batch: Batch, slots: range) -> None:
        part = slice(slots.start, slots.stop)
        if self._committed and self._stamps.keys() != batch.stamps.keys():
            raise PipelineError("the source stamps some items and others not")
        self._committed = True
        for name, column in batch.stamps.items():
            # An item that was taken over has no stamp of the source any more.
            self._stamps.setdefault(name, self._ring.received.copy())[part] = column
        self._ring.note_tally(timed=int(batch.t_acq is not None))
        stamp = batch.stamps["received"]
        self._ring.commit(slots, int(batch.seq[0]), batch.ids, batch.t_acq, stamp)
        for k, slot in enumerate(slots):
            if self.keeps_packed and batch.packed:
                self._packed[slot] = batch.packed[k]
            else:
                self._packed.pop(slot, None)
        self._custody.take(int(batch.seq[0]), slots)

    def _note(self) -> None:
        """Write down how far we are, for a receiver that may come after this one."""
        last = self.gaps.last
        self._ring.note_tally(
            received=self.received, missed=self.gaps.missed, last_id=0 if last is None else last
        )

    def _end(self, endings: list[Failure | Dropped]) -> None:
        for ending in endings:
            self._custody.end(ending)
        if endings:
            self._tell(endings)
