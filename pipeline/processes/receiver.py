"""The receiver: owns what comes from the source, numbers it, and hands it to who asks for it.

It answers for every item until the sinks have it. One that is started again finds in the ring what
the earlier one held.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable
from threading import Event

from phasewatch.pipeline.batch import Dropped, Failure
from phasewatch.pipeline.bodies import AckBody, CreditBody, LeaveBody, ResumeBody, StopBody
from phasewatch.pipeline.build import context_of, slots_of
from phasewatch.pipeline.custody import Custody, Order
from phasewatch.pipeline.documents import WHOLE, Loss, Packing, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import (
    Message,
    Part,
    encode,
    encode_batch,
    encode_packed,
    encode_slots,
    encode_start,
)
from phasewatch.pipeline.plugin import Source, open_source
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.intake import Intake, resume_at
from phasewatch.pipeline.processes.note import note_of, noted
from phasewatch.pipeline.processes.onward import encode_endings
from phasewatch.pipeline.processes.reader import Reader
from phasewatch.pipeline.transport.links import Link, Transport, Wakeup
from phasewatch.pipeline.transport.ring import Ring

FRAMES_AT_ONCE = 8  # what the kernels add together
PATTERNS_AT_ONCE = 64
BIG = 1 << 16  # bytes of an item that counts as a frame
READ_AHEAD = 4  # batches of the source
DRAIN = 64  # messages of a link that are heard before it is the others' turn
IDLE_NS = 100_000_000
WORD_EVERY_NS = 100_000_000
# An order costs the processes some 0.7 ms whatever is in it: at 1 kHz one for each item keeps two
# cores busy. At this pace an item waits for 0.7 ms on average, and below 600 Hz for nothing.
# Measured on two cores at 1 kHz, p99 in ms: without a pace 27, 1 ms 8.9, 1.5 ms 4.7 to 7.6, 1.9 ms
# 5.2 to 6.5, 2.5 ms 4.6 to 6.7, 4 ms 7.6.
PACE_NS = 1_500_000


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    if setup.ring is None:
        raise RuntimeError("a receiver without shared memory")
    source = open_source(setup.config.source.uri, **setup.config.source.options)
    reading: Callable[[], bool] = bool
    try:
        run, ring = begin(source, setup, setup.ring)
        wanted = Event()
        pack: Callable[[Callable[[], bool]], Packing | None] = getattr(source, "pack", _no_packing)
        receiver = Receiver(transport, desk, setup, run, ring, pack(wanted.is_set), wanted)
        wait = setup.config.runtime.mode == "lossless"
        reader = Reader(source, transport.wakeup(), ring, limit=READ_AHEAD, wait=wait)
        reading = reader.reading
        receiver.loop(reader)
    finally:
        if not reading():  # the source is not closed under the reader's hands
            source.close()


def begin(source: Source, setup: Setup, memory: int) -> tuple[RunStart, Ring]:
    """Start the source, or let it go on with the run in which an earlier receiver died."""
    if not setup.again or not Ring.laid_out(memory):
        run = source.start()
        slots = slots_of(setup.config, run.items)
        ring = Ring.create(memory, run.items, slots=slots, note=note_of(run))
        return announce(run, setup), ring
    ring = Ring.attach(memory, writable=True)
    run = noted(ring)
    resume = getattr(source, "resume", None)
    if resume is not None:
        replays = getattr(source, "replays", True)
        resume(run, resume_at(ring) if replays else ring.tally("received"))
    else:
        again = source.start()
        if again.items != run.items:
            raise PipelineError("the source began again with items of another form")
    return announce(run, setup), ring


def announce(run: RunStart, setup: Setup) -> RunStart:
    """Return the source's `run` with what the configuration adds to it."""
    config = setup.config.model_dump(mode="json")
    text = json.dumps(config, sort_keys=True)
    return run.evolve(
        run_id=setup.run_id,
        digests={**run.digests, "configuration": hashlib.sha256(text.encode()).hexdigest()},
        settings={**run.settings, "configuration": config},
    )


class Receiver:
    """The receiver's links and its books.

    `packing` is how the source can give frames, `wanted` is set while there is a worker who can
    take them so.
    """

    def __init__(
        self,
        transport: Transport,
        desk: Desk,
        setup: Setup,
        run: RunStart,
        ring: Ring,
        packing: Packing | None,
        wanted: Event,
    ) -> None:
        runtime = setup.config.runtime
        self._transport, self._desk, self._run, self._ring = transport, desk, run, ring
        self._work = transport.link("router", setup.addresses["work"], bind=True)
        self._acks = transport.link("pull", setup.addresses["acks"], bind=True)
        self._tracker = transport.link("push", setup.addresses["tracker"], bind=False)
        item = sum(array[0].nbytes for array in ring.arrays.values())
        at_once = FRAMES_AT_ONCE if item > BIG else PATTERNS_AT_ONCE
        self._context, self._next_word = context_of(setup.config), 0
        # A classifier that keeps the order is told what it need not wait for, and hands it on.
        told = setup.addresses["endings" if self._context else "tracker"]
        self._endings = transport.link("push", told, bind=False)
        self._untold: deque[list[Part]] = deque()
        self._custody = Custody(at_once=at_once, pace_ns=PACE_NS, keep=self._context)
        self._intake = Intake(run, ring, self._custody, self._tell, live=runtime.mode == "live")
        self._patience_ns = int(runtime.resend_s * 1e9)
        self._packing, self._wanted = packing, wanted
        self._workers: dict[bytes, CreditBody] = {}  # what it said first
        self._stop_reason, self._stop = WHOLE, list[Part]()
        if setup.again:
            self._intake.recover()

    def loop(self, reader: Reader) -> None:
        """Serve sockets and source until the run is over."""
        self._desk.report("started", **self._announcement())
        links: list[Link | Wakeup] = [self._work, self._acks, self._desk.link, reader.wakeup]
        try:
            while not self._desk.finished:
                wait_ns = self._custody.wait_ns(self._desk.clock()) or IDLE_NS
                ready = self._transport.poll(links, -(-min(wait_ns, IDLE_NS) // 1_000_000))
                self._turn(reader, ready)
        finally:
            reader.stop()
            reader.join(timeout_s=2.0)

    def _turn(self, reader: Reader, ready: list[Link | Wakeup]) -> None:
        if reader.wakeup in ready:
            reader.wakeup.clear()
        for worker, message in self._work.drain(DRAIN):
            self._hear_worker(worker, message)
        for _, message in self._acks.drain(DRAIN):
            self._hear_sinks(message)
        self._obey(reader)
        # Never waits: the source goes on while who is told has died.
        while self._untold and self._endings.offer(self._untold[0]):
            self._untold.popleft()
        self._intake.place()
        while self._intake.idle and (item := reader.take()) is not None:
            self._intake.add(item, self._desk.clock())
            self._send()
        self._send()
        if reader.drained and self._intake.idle and not self._custody.unsent and not self._stop:
            self._close_run(reader.error)
        self._desk.health(self._health)

    def _health(self) -> dict[str, object]:
        return {
            "received": self._intake.received,
            "missed": self._intake.gaps.missed,
            "queued": self._custody.unsent,
            "in_flight": self._custody.flying,
            "age_ms": self._intake.age_ns(self._desk.clock()) / 1e6,
            "resent": self._custody.resent,
            "rejected": self._work.rejected + self._acks.rejected,
        }

    def _announcement(self) -> dict[str, object]:
        items = {
            name: f"{spec.dtype.lstrip('<|')} {'x'.join(map(str, spec.shape))}"
            for name, spec in self._run.items.items()
        }
        return {"expected": self._run.expected, "source": self._run.source, "items": items}

    def _tell(self, endings: list[Failure | Dropped]) -> None:
        self._untold.extend(encode_endings(self._run.run_id, endings))

    def _hear_worker(self, worker: bytes, message: Message) -> None:
        if isinstance(message.body, LeaveBody):
            self._forget(worker)
        elif isinstance(message.body, CreditBody):
            if worker not in self._workers:
                self._workers[worker] = message.body
                self._want_packed()
                packing = self._packing if self._unpacks(message.body) else None
                self._work.offer(encode_start(self._run, packing), to=worker)
            self._custody.credit(worker, message.body.n, afresh=message.body.afresh)

    def _hear_sinks(self, message: Message) -> None:
        body = message.body
        if not isinstance(body, AckBody):
            return
        if body.run_id == self._run.run_id and body.seq <= self._intake.received:
            self._intake.acknowledge(body.seq)
            # Measured from when we hear of the sinks: while they are slow, nothing is overdue.
            self._custody.overdue(self._desk.clock() - self._patience_ns)
            if self._desk.clock() >= self._next_word:
                self._say_where()

    def _obey(self, reader: Reader) -> None:
        for what, data in self._desk.commands():
            if what == "go":
                reader.start()
            elif what == "gone":
                self._forget(str(data["role"]).encode())
            elif what == "back" and data["role"] in ("classifier", "tracker"):
                self._say_again()
            elif what == "stop":
                self._stop_reason = str(data["reason"])
                reader.stop()
            elif what == "abort":
                self._stop_reason = str(data["reason"])
                reader.stop()
                self._tell_end(aborted=True)

    def _forget(self, worker: bytes) -> None:
        if self._workers.pop(worker, None) is not None:
            self._custody.lost(worker)
            self._want_packed()

    def _want_packed(self) -> None:
        wanted = any(map(self._unpacks, self._workers.values()))
        self._intake.keeps_packed = wanted
        (self._wanted.set if wanted else self._wanted.clear)()

    def _unpacks(self, worker: CreditBody) -> bool:
        return self._packing is not None and self._packing.codec in worker.codecs

    def _say_again(self) -> None:
        """Send all that may have been lost with a process behind the workers."""
        self._say_where()
        self._custody.all_lost()
        self._untold.clear()
        self._tell(self._custody.endings)
        if self._stop:
            self._desk.send(self._tracker, self._stop)

    def _say_where(self) -> None:
        """Tell a classifier that keeps the order the first item that it can still wait for."""
        if self._context:
            self._next_word = self._desk.clock() + WORD_EVERY_NS
            body = ResumeBody(run_id=self._run.run_id, position=self._custody.first)
            self._endings.offer(encode(body))

    def _send(self) -> None:
        while (order := self._custody.next(self._desk.clock())) is not None:
            if not self._work.offer(self._parts(order), to=order.worker):
                self._forget(order.worker)  # it has gone

    def _parts(self, order: Order) -> list[Part]:
        batch = self._intake.fetch(order).stamped("sent", self._desk.clock())
        run_id, worker = self._run.run_id, self._workers.get(order.worker)
        if worker is not None and worker.local:
            generation = self._ring.generation[order.slot : order.slot + order.n]
            return encode_slots(run_id, batch, slot=order.slot, generation=generation)
        packed = self._intake.packed(order)
        if worker is None or packed is None or not self._unpacks(worker):
            return encode_batch(run_id, batch)
        return encode_packed(run_id, batch, packed) or encode_batch(run_id, batch)

    def _close_run(self, error: BaseException | None) -> None:
        if error is not None:
            known = isinstance(error, ValueError | OSError) or not str(error)
            kind = "" if known else f"{type(error).__name__}: "
            self._stop_reason = f"source: {kind}{one_line(error)}"
            self._desk.report("broken", reason=self._stop_reason)
        self._tell_end(aborted=False)

    def _tell_end(self, *, aborted: bool) -> None:
        intake = self._intake
        loss = Loss(
            expected=self._run.expected, received=intake.received, missed=intake.gaps.missed
        )
        stop = RunStop(run_id=self._run.run_id, reason=self._stop_reason, loss=loss)
        self._stop = encode(StopBody(stop=stop, aborted=aborted))
        self._desk.send(self._tracker, self._stop)


def _no_packing(wanted: Callable[[], bool]) -> Packing | None:
    """Stand in for the `pack` that a source does not have."""
    return None
