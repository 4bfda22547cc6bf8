"""The tracker process: restores the order, follows the transition, keeps the loss table.

All it gives out are reports: each has what ended, in order of seq, up to a position, and what the
tracker remembers there. The sinks keep the last memory, so a tracker that is started again goes on
from exactly what they have; what came after, the receiver sends again, and the fold over it is the
same to the last bit.
"""

from contextlib import suppress

import numpy as np

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.bodies import (
    BatchBody,
    CreditBody,
    DroppedBody,
    FailedBody,
    ReportBody,
    ResumeBody,
    StartBody,
    StopBody,
)
from phasewatch.pipeline.documents import WHOLE, Loss, RunStart, RunStop
from phasewatch.pipeline.ledger import Ledger
from phasewatch.pipeline.memory import Memory, dump, load
from phasewatch.pipeline.messages import (
    ERROR_LENGTH,
    Message,
    MessageError,
    Part,
    columns_of,
    encode,
    encode_start,
)
from phasewatch.pipeline.processes.agreement import Agreement
from phasewatch.pipeline.processes.desk import TRACKER, Desk, Setup
from phasewatch.pipeline.reorder import reorder
from phasewatch.pipeline.stage import isolate
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.links import Transport

DRAIN = 64  # messages read before the tracker looks what it can do


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("pull", setup.addresses["tracker"], bind=True, hwm=64)
    tracker = TrackerProcess(transport, desk, setup)
    while not desk.finished:
        ready = transport.poll([inbox, tracker.results, desk.link], timeout_ms=100)
        for what, data in desk.commands():
            if what == "abort":
                tracker.abort(str(data["reason"]), int(data["received"]), int(data["missed"]))
            elif what == "reset":
                tracker.reset(int(data["n"]))
        if tracker.results in ready:
            received = tracker.results.receive()
            if received is not None:
                tracker.resume(received[1])
        for _, message in inbox.drain(DRAIN):
            try:
                tracker.hear(message)
            except MessageError as error:
                inbox.refuse(str(error))
        tracker.advance()
        desk.health(lambda: {**tracker.health(), "rejected": inbox.rejected})


class TrackerProcess:
    """The books of one run, and the link that tells of them."""

    def __init__(self, transport: Transport, desk: Desk, setup: Setup) -> None:
        runtime = setup.config.runtime
        self._desk, self._run_id = desk, setup.run_id
        self._limit, self._too_many = runtime.failures_in_a_row, False
        # By its name: the sinks take reports of the tracker only, and of the last one only.
        self.results = transport.link(
            "dealer", setup.addresses["results"], bind=False, hwm=8, identity=TRACKER
        )
        self._reorder = reorder(live=runtime.mode == "live", wait_s=runtime.reorder_wait_s)
        self._track = Track(**setup.config.track.model_dump()) if setup.config.classifier else None
        self._agreement, self._ledger = Agreement(), Ledger()
        self._run: RunStart | None = None
        self._resumed: tuple[int, bytes] | None = None if setup.again else (0, b"")
        self._end: RunStop | None = None
        self._aborted = self._told = False
        self._phase: tuple[int, float] | None = None
        if setup.again:
            desk.send(self.results, encode(CreditBody(n=0)))  # asks the sinks where to go on

    def resume(self, message: Message) -> None:
        """Take what the sinks say they have, and what was remembered then."""
        body = message.body
        if self._resumed is None and isinstance(body, ResumeBody) and body.run_id == self._run_id:
            state = message.arrays.get("state", np.empty(0, np.uint8))
            self._resumed = body.position, state.tobytes()
            self._reorder.skip(body.position)
            self._begin()

    def hear(self, message: Message) -> None:
        """Take one message of this run in; after the end of the run there is none."""
        body = message.body
        if self._told:
            return
        if isinstance(body, StartBody) and body.run.run_id == self._run_id:
            run = message.run()
            if self._agreement.is_new(run):
                self._run = run
                self._begin()
                while self._agreement.early:
                    with suppress(MessageError):  # what cannot be of this run
                        self.hear(self._agreement.early.popleft())
        elif isinstance(body, StopBody) and body.stop.run_id == self._run_id:
            self._end = self._end or body.stop
            if body.aborted:
                self._abort(body.stop)
        elif isinstance(body, FailedBody) and body.run_id == self._run_id:
            self._check([seq for seq, *_ in body.items])
            self._reorder.end_items(body.failures())
        elif isinstance(body, DroppedBody) and body.run_id == self._run_id:
            self._check([seq for seq, _ in body.items])
            self._reorder.end_items(Dropped(seq, i, body.reason) for seq, i in body.items)
        elif isinstance(body, BatchBody) and body.run_id == self._run_id:
            batch = self._agreement.batch(message)
            if batch is not None:
                self._check(batch.seq.tolist())
                self._reorder.add(batch)

    def reset(self, n: int) -> None:
        """Follow the transition anew, from the next item on; the loss table goes on.

        `n`: how many times this run was told to. One that has not begun is told again.
        """
        if self._track is not None and self._begun and self._track.reset(n):
            self._phase = None

    def abort(self, reason: str, received: int, missed: int) -> None:
        """End the run here, without a receiver that could say how much it had received."""
        loss = Loss(received=max(received, self._reorder.end), missed=missed)
        if not self._told:
            self._abort(RunStop(run_id=self._run_id, reason=reason, loss=loss))

    def advance(self) -> None:
        """Report what has ended in order; end the run when all of it has."""
        if self._resumed is None or not (self._begun or self._aborted):
            return
        while self._release():
            continue
        if self._reorder.longest_row > self._limit and not self._too_many:
            self._too_many = True
            text = f"more than {self._limit} items in a row failed ([runtime] failures_in_a_row)"
            self._desk.report("error", text=text, final=True)
        if self._end is None or self._told:
            return
        if self._ledger.ended == self._end.loss.received:
            self._tell_end(self._end)

    def health(self) -> dict[str, object]:
        """Return what the progress line shows."""
        health: dict[str, object] = {
            "classified": self._ledger.classified,
            "failed": self._ledger.failed,
            "dropped": dict(self._ledger.dropped),
            "twice": self._reorder.ignored,
            "queued": len(self._reorder),
        }
        if self._track is not None and self._phase is not None:
            zones = [zone.model_dump() for zone in self._track.zones]
            health |= {"phase": self._phase[0], "posterior": self._phase[1], "zones": zones}
            health |= {"confidence": self._track.confidence}
        return health

    def _check(self, seqs: list[int]) -> None:
        if self._resumed is not None:  # before, any seq may be the next
            self._reorder.check(seqs)

    @property
    def _begun(self) -> bool:
        return self._run is not None and self._resumed is not None

    def _begin(self) -> None:
        if self._run is None or self._resumed is None:
            return
        run = self._track.start(self._run) if self._track is not None else self._run
        if self._resumed[1]:
            memory = load(self._resumed[1])
            self._ledger = memory.ledger
            self._reorder.row, self._reorder.longest_row = memory.row, memory.longest_row
            if self._track is not None and memory.fold is not None:
                self._track.state, self._track.resets = memory.fold, memory.resets
        self._to_sinks(encode_start(run))
        self._desk.ready(classes=run.classes)

    def _release(self) -> bool:
        batch, endings = self._reorder.release(self._desk.clock())
        if batch is None and not endings:
            return False
        failures = [e for e in endings if isinstance(e, Failure)]
        dropped = [e for e in endings if isinstance(e, Dropped)]
        if batch is not None and self._track is not None and self._begun:
            batch, bad = isolate("track", self._track.process, batch)
            failures += bad
        if batch is not None:
            batch = batch.stamped("tracked", self._desk.clock())
            self._ledger.classify(len(batch))
        self._ledger.fail(failures)
        for one in dropped:
            self._ledger.drop(1, one.reason)
        if self._begun:
            self._report(batch, failures, dropped)
        return True

    def _report(self, batch: Batch | None, failures: list[Failure], dropped: list[Dropped]) -> None:
        track = self._track
        if track is not None and batch is not None:
            phase = int(batch.arrays["phase"][-1])
            self._phase = phase, float(batch.arrays["posterior"][-1].max())
        fold, resets = (None, 0) if track is None else (track.state, track.resets)
        rows = self._reorder.row, self._reorder.longest_row
        state = dump(Memory(self._ledger, *rows, fold, resets))
        names, arrays = ((), {}) if batch is None else columns_of(batch)
        body = ReportBody(
            run_id=self._run_id,
            columns=names,
            position=self._reorder.next_seq,
            n=0 if batch is None else len(batch),
            failed=tuple((f.seq, f.id, f.stage[:64], f.error[:ERROR_LENGTH]) for f in failures),
            dropped=tuple((d.seq, d.id, d.reason) for d in dropped),
            events=tuple(track.take_events()) if track is not None else (),
        )
        arrays["state"] = np.frombuffer(state, np.uint8)
        self._to_sinks(encode(body, arrays))

    def _abort(self, end: RunStop) -> None:
        self._aborted, self._end = True, end
        self._reorder.give_up(end.loss.received, end.reason)
        self.advance()

    def _tell_end(self, end: RunStop) -> None:
        self._told, begun = True, self._begun
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
            failures=self._ledger.failures,
        )
        if begun:
            self._to_sinks(encode(StopBody(stop=stop)))
        self._desk.report("tracked", stop=stop.model_dump(mode="json"), begun=begun)

    def _to_sinks(self, parts: list[Part]) -> None:
        self._desk.send(self.results, parts, to_role="sink")
