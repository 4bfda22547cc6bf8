"""The tracker process: restores the order, follows the transition, keeps the loss table."""

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import (
    AckBody,
    BatchBody,
    DroppedBody,
    EventBody,
    FailedBody,
    StartBody,
    StopBody,
)
from phasewatch.pipeline.documents import WHOLE, Event, Loss, RunStart, RunStop
from phasewatch.pipeline.latency import Latency
from phasewatch.pipeline.ledger import Ledger
from phasewatch.pipeline.messages import (
    Message,
    Part,
    encode,
    encode_batch,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.reorder import Reorder
from phasewatch.pipeline.stage import isolate
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.links import Transport

LIVE_WINDOW = 65536  # items
MAX_EVENTS = 1000  # in the stop of a run; every one goes to the sinks as it happens


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("pull", setup.addresses["tracker"], bind=True, hwm=64)
    tracker = TrackerProcess(transport, desk, setup)
    while not desk.finished:
        ready = transport.poll([inbox, desk.link], timeout_ms=100)
        for what, data in desk.commands():
            if what == "abort":
                tracker.abort(str(data["reason"]), int(data["received"]), int(data["missed"]))
        received = inbox.receive() if inbox in ready else None
        if received is not None:
            tracker.hear(received[1])
        tracker.advance()
        desk.health(**tracker.health(), rejected=inbox.rejected)


class TrackerProcess:
    """The books of one run, and the links that tell of them."""

    def __init__(self, transport: Transport, desk: Desk, setup: Setup) -> None:
        runtime = setup.config.runtime
        self._desk, self._run_id = desk, setup.run_id
        self._limit, self._too_many = runtime.failures_in_a_row, False
        self._acks = transport.link("push", setup.addresses["acks"], bind=False)
        self._results = transport.link("push", setup.addresses["results"], bind=False, hwm=8)
        # Lossless, the receiver bounds what is under way, and whoever holds an item delivers it or
        # ends the run by dying; live, nothing is waited for longer than it is worth.
        live = runtime.mode == "live"
        self._reorder = Reorder(
            window=LIVE_WINDOW if live else None,
            max_age_ns=int(runtime.reorder_wait_s * 1e9) if live else None,
        )
        self._track = Track(**setup.config.track.model_dump()) if setup.config.classifier else None
        self._agreement, self._ledger, self._latency = Agreement(), Ledger(), Latency()
        self._run: RunStart | None = None
        self._early: list[Failure] = []
        self._events: list[Event] = []
        self._end: RunStop | None = None
        self._told = False
        self._acknowledged = 0
        self._first_ns = self._last_ns = 0
        self._phase: tuple[int, float] | None = None

    def hear(self, message: Message) -> None:
        """Take one message of this run in; after the end of the run there is none."""
        body = message.body
        if self._told:
            return
        if isinstance(body, StartBody) and body.run.run_id == self._run_id:
            self._begin(message.run())
        elif isinstance(body, StopBody) and body.stop.run_id == self._run_id:
            self._end = self._end or body.stop
            if body.aborted:
                self._abort(body.stop)
        elif isinstance(body, FailedBody) and body.run_id == self._run_id:
            failures = body.failures()
            fresh = set(self._reorder.pass_over((f.seq for f in failures), failed=True))
            self._fail([f for f in failures if f.seq in fresh])
        elif isinstance(body, DroppedBody) and body.run_id == self._run_id:
            fresh = set(self._reorder.pass_over((seq for seq, _ in body.items), failed=False))
            self._drop(body, fresh)
        elif isinstance(body, BatchBody) and body.run_id == self._run_id:
            self._reorder.add(message.batch())

    def abort(self, reason: str, received: int, missed: int) -> None:
        """End the run here, without a receiver that could say how much it had received."""
        loss = Loss(received=max(received, self._reorder.end), missed=missed)
        if not self._told:
            self._abort(RunStop(run_id=self._run_id, reason=reason, loss=loss))

    def advance(self) -> None:
        """Process what is in order; end the run when all of it has ended."""
        batch, given_up = self._reorder.release(self._desk.clock())
        self._process(batch)
        text = "did not come within [runtime] reorder_wait_s"
        self._fail([Failure(seq, -1, "reorder", text) for seq in given_up])
        if self._reorder.failed_in_a_row > self._limit and not self._too_many:
            self._too_many = True
            text = f"more than {self._limit} items in a row failed ([runtime] failures_in_a_row)"
            self._desk.report("error", text=text)
        if self._end is None or self._run is None or self._told:
            return
        if self._ledger.ended == self._end.loss.received:
            self._tell_end(self._end)

    def health(self) -> dict[str, object]:
        """Return what the progress line shows."""
        total = self._latency.total
        health: dict[str, object] = {
            "classified": self._ledger.classified,
            "failed": self._ledger.failed,
            "dropped": sum(self._ledger.dropped.values()),
            "rate_hz": self._rate(),
        }
        if self._ledger.classified:
            health |= {"p50_ms": total.quantile_ms(0.5), "p99_ms": total.quantile_ms(0.99)}
        if self._track is not None and self._phase is not None:
            zones = [zone.model_dump() for zone in self._track.zones]
            health |= {"phase": self._phase[0], "posterior": self._phase[1], "zones": zones}
            health |= {"confidence": self._track.confidence}
        return health

    def _begin(self, run: RunStart) -> None:
        if not self._agreement.is_new(run):
            return
        self._run = self._track.start(run) if self._track is not None else run
        self._to_sink(encode_start(self._run))
        self._desk.report("ready", classes=self._run.classes)
        self._tell_failures(self._early)
        self._early = []

    def _fail(self, failures: list[Failure]) -> None:
        self._ledger.fail(failures)
        self._tell_failures(failures)

    def _tell_failures(self, failures: list[Failure]) -> None:
        if self._run is None:
            self._early += failures
            return
        for parts in encode_failed(self._run_id, failures):
            self._to_sink(parts)

    def _drop(self, body: DroppedBody, fresh: set[int]) -> None:
        self._ledger.drop(len(fresh), body.reason)
        items = tuple(item for item in body.items if item[0] in fresh)
        if items:
            self._to_sink(encode(body.model_copy(update={"items": items})))

    def _process(self, batch: Batch | None) -> None:
        good = batch
        if batch is not None and self._track is not None:
            good, bad = isolate("track", self._track.process, batch)
            self._fail(bad)
        if good is not None:
            self._finish_items(good)
        if self._acknowledged < self._reorder.next_seq:
            self._acknowledge(self._reorder.next_seq)

    def _acknowledge(self, seq: int) -> None:
        # Never waits: the receiver may be waiting for us. What was not sent now, the next one says.
        if self._acks.offer(encode(AckBody(run_id=self._run_id, seq=seq))):
            self._acknowledged = seq

    def _finish_items(self, batch: Batch) -> None:
        now = self._desk.clock()
        batch = batch.stamped("tracked", now)
        self._first_ns = self._first_ns or int(batch.stamps["received"][0])
        self._last_ns = now
        self._latency.add(batch)
        self._ledger.classify(len(batch))
        self._to_sink(encode_batch(self._run_id, batch))
        if self._track is None:
            return
        phase = int(batch.arrays["phase"][-1])
        self._phase = phase, float(batch.arrays["posterior"][-1].max())
        for event in self._track.take_events():
            if len(self._events) < MAX_EVENTS:
                self._events.append(event)
            self._to_sink(encode(EventBody(run_id=self._run_id, event=event)))
            self._desk.offer("event", event=event.model_dump(mode="json"))

    def _rate(self) -> float:
        elapsed = self._last_ns - self._first_ns
        return self._ledger.classified / elapsed * 1e9 if elapsed > 0 else 0.0

    def _abort(self, end: RunStop) -> None:
        batch, missing = self._reorder.finish(end.loss.received)
        self._process(batch)
        self._fail([Failure(seq, -1, "run", end.reason) for seq in missing])
        self._tell_end(end)

    def _tell_end(self, end: RunStop) -> None:
        self._told, begun = True, self._run is not None
        track = self._track if begun else None
        loss = self._ledger.loss(
            received=end.loss.received,
            missed=end.loss.missed,
            expected=end.loss.expected,
            whole=end.reason == WHOLE,
        )
        stop = RunStop(
            run_id=self._run_id,
            reason=end.reason,
            loss=loss,
            confidence=track.confidence if track else None,
            zones=track.zones if track else (),
            events=tuple(self._events),
            failures=self._ledger.failures,
            latency_ms=self._latency.summary(),
            rate_hz=round(self._rate(), 3),
        )
        if begun:
            self._to_sink(encode(StopBody(stop=stop)))
        self._desk.report("tracked", stop=stop.model_dump(mode="json"), begun=begun)

    def _to_sink(self, parts: list[Part]) -> None:
        self._desk.send(self._results, parts, to_role="sink")
