"""The tracker process: restores the order, follows the transition, keeps the loss table."""

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, Loss, RunStart, RunStop
from phasewatch.pipeline.latency import Latency
from phasewatch.pipeline.ledger import Ledger
from phasewatch.pipeline.messages import (
    AckBody,
    BatchBody,
    DroppedBody,
    EventBody,
    FailedBody,
    Message,
    StartBody,
    StopBody,
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


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("pull", setup.addresses["tracker"], bind=True, hwm=64)
    tracker = TrackerProcess(transport, desk, setup)
    while not desk.finished:
        ready = transport.poll([inbox, desk.link], timeout_ms=100)
        for what, data in desk.commands():
            if what == "abort":
                tracker.abort(str(data["reason"]), int(data["received"]))
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
        self._limit = runtime.failures_in_a_row
        self._acks = transport.link("push", setup.addresses["acks"], bind=False)
        self._results = transport.link("push", setup.addresses["results"], bind=False, hwm=8)
        self._reorder = Reorder(
            window=64 * runtime.in_flight * max(1, runtime.reducers),
            max_age_ns=int(runtime.reorder_wait_s * 1e9),
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
        """Take one message in; after the end of the run there is none."""
        body = message.body
        if self._told:
            return
        if isinstance(body, StartBody):
            self._begin(message.run())
        elif isinstance(body, BatchBody) and body.run_id == self._run_id:
            self._reorder.add(message.batch())
        elif isinstance(body, FailedBody) and body.run_id == self._run_id:
            self._fail(body.failures())
        elif isinstance(body, DroppedBody) and body.run_id == self._run_id:
            fresh = self._reorder.pass_over(seq for seq, _ in body.items)
            self._ledger.drop(len(fresh), body.reason)
        elif isinstance(body, StopBody) and body.stop.run_id == self._run_id:
            self._end = self._end or body.stop

    def abort(self, reason: str, received: int) -> None:
        """End the run here: what has not come by now has failed, and what comes later is late."""
        if self._told:
            return
        received = max(received, self._reorder.end)
        self._end = RunStop(run_id=self._run_id, reason=reason, loss=Loss(received=received))
        batch, missing = self._reorder.finish(received)
        self._process(batch)
        self._ledger.fail(len(missing))
        self._tell_failures([Failure(seq, -1, "run", reason) for seq in missing])
        self._tell_end()

    def advance(self) -> None:
        """Process what is in order; end the run when all of it has ended."""
        batch, given_up = self._reorder.release(self._desk.clock())
        self._process(batch)
        if given_up:
            self._ledger.fail(len(given_up))
            text = "did not come within [runtime] reorder_wait_s"
            self._tell_failures([Failure(seq, -1, "reorder", text) for seq in given_up])
        if self._ledger.failed_in_a_row > self._limit:
            self._desk.report("error", text=self._too_many())
            self._ledger.failed_in_a_row = 0
        if self._end is None or self._run is None or self._told:
            return
        if self._ledger.ended == self._end.loss.received:
            self._tell_end()

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
        if self._track is not None and self._run is not None and self._phase is not None:
            zones = [zone.model_dump() for zone in self._track.zones]
            health |= {"classes": self._run.classes, "phase": self._phase[0], "zones": zones}
            health |= {"posterior": self._phase[1], "confidence": self._track.confidence}
        return health

    def _begin(self, run: RunStart) -> None:
        if not self._agreement.is_new(run):
            return
        self._run = self._track.start(run) if self._track is not None else run
        self._desk.send(self._results, encode_start(self._run))
        self._desk.report("ready")
        self._tell_failures(self._early)
        self._early = []

    def _fail(self, failures: list[Failure]) -> None:
        fresh = set(self._reorder.pass_over(f.seq for f in failures))
        self._ledger.fail(len(fresh))
        self._tell_failures([f for f in failures if f.seq in fresh])

    def _tell_failures(self, failures: list[Failure]) -> None:
        if self._run is None:
            self._early += failures
        elif failures:
            self._desk.send(self._results, encode_failed(self._run_id, failures))

    def _process(self, batch: Batch | None) -> None:
        good = batch
        if batch is not None and self._track is not None:
            good, bad = isolate("track", self._track.process, batch)
            self._ledger.fail(len(bad))
            self._tell_failures(bad)
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
        self._desk.send(self._results, encode_batch(self._run_id, batch))
        if self._track is None:
            return
        phase = int(batch.arrays["phase"][-1])
        self._phase = phase, float(batch.arrays["posterior"][-1].max())
        for event in self._track.take_events():
            self._events.append(event)
            self._desk.send(self._results, encode(EventBody(run_id=self._run_id, event=event)))
            self._desk.report("event", event=event.model_dump(mode="json"))

    def _rate(self) -> float:
        elapsed = self._last_ns - self._first_ns
        return self._ledger.classified / elapsed * 1e9 if elapsed > 0 else 0.0

    def _tell_end(self) -> None:
        self._told, begun = True, self._run is not None
        if self._end is None:
            raise RuntimeError("the end of the run is not known yet")
        track = self._track if begun else None
        stop = RunStop(
            run_id=self._run_id,
            reason=self._end.reason,
            loss=self._ledger.loss(
                **self._end.loss.model_dump(include={"received", "missed", "expected"})
            ),
            confidence=track.confidence if track else None,
            zones=track.zones if track else (),
            events=tuple(self._events),
            latency_ms=self._latency.summary(),
            rate_hz=round(self._rate(), 3),
        )
        if begun:
            self._desk.send(self._results, encode(StopBody(stop=stop)))
        self._desk.report("tracked", stop=stop.model_dump(mode="json"), begun=begun)

    def _too_many(self) -> str:
        return f"more than {self._limit} items in a row failed ([runtime] failures_in_a_row)"
