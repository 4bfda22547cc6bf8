"""The receiver: owns what comes from the source, numbers it, and hands it to who asks for it."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from phasewatch.pipeline.batch import Batch, Failure, concatenate
from phasewatch.pipeline.bodies import AckBody, CreditBody, StopBody
from phasewatch.pipeline.dispatch import Dispatcher
from phasewatch.pipeline.documents import WHOLE, Loss, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.ledger import Gaps
from phasewatch.pipeline.messages import (
    encode,
    encode_batch,
    encode_dropped,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.plugin import open_source
from phasewatch.pipeline.processes.desk import Desk, Setup
from phasewatch.pipeline.processes.reader import Reader
from phasewatch.pipeline.stage import Conform, isolate
from phasewatch.pipeline.transport.links import Link, Transport, Wakeup

LATE = "ring full"


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    source = open_source(setup.config.source.uri, **setup.config.source.options)
    run = announce(source.start(), setup)
    try:
        receiver = Receiver(transport, desk, setup, run)
        reader = Reader(source, transport.wakeup(), limit=4)
        receiver.loop(reader)
    finally:
        source.close()


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
    """The receiver's links and its books."""

    def __init__(self, transport: Transport, desk: Desk, setup: Setup, run: RunStart) -> None:
        runtime = setup.config.runtime
        self._transport, self._desk, self._run = transport, desk, run
        self._live = runtime.mode == "live"
        self._work = transport.link("router", setup.addresses["work"], bind=True)
        self._acks = transport.link("pull", setup.addresses["acks"], bind=True)
        self._tracker = transport.link("push", setup.addresses["tracker"], bind=False)
        self._dispatcher = Dispatcher(queue=runtime.queue, in_flight=runtime.in_flight)
        self._gaps, self._conform = Gaps(), Conform(run)
        self._received = 0
        self._started: set[bytes] = set()
        self._stop_reason = WHOLE
        self._stopped = False

    def loop(self, reader: Reader) -> None:
        """Serve sockets and source until the run is over."""
        self._desk.report("started", **self._announcement())
        links: list[Link | Wakeup] = [self._work, self._acks, self._desk.link, reader.wakeup]
        try:
            while not self._desk.finished:
                self._turn(reader, self._transport.poll(links, timeout_ms=100))
        finally:  # the source is not closed under the reader's hands
            reader.stop()
            reader.join(timeout_s=2.0)

    def _turn(self, reader: Reader, ready: list[Link | Wakeup]) -> None:
        if reader.wakeup in ready:
            reader.wakeup.clear()
        if self._work in ready:
            self._hear_worker()
        if self._acks in ready:
            self._hear_tracker()
        self._obey(reader)
        if self._live or not self._dispatcher.full:
            for item in reader.take():
                self._take_in(item)
        self._send()
        if self._live:
            self._drop(self._dispatcher.overflow())
        if reader.drained and not self._dispatcher.queued and not self._stopped:
            self._close_run(reader.error)
        self._desk.health(
            received=self._received,
            missed=self._gaps.missed,
            queued=self._dispatcher.queued,
            in_flight=self._dispatcher.in_flight,
            rejected=self._work.rejected + self._acks.rejected,
        )

    def _announcement(self) -> dict[str, object]:
        items = {
            name: f"{spec.dtype.lstrip('<|')} {'x'.join(map(str, spec.shape))}"
            for name, spec in self._run.items.items()
        }
        return {"expected": self._run.expected, "source": self._run.source, "items": items}

    def _take_in(self, item: Batch | Failure) -> None:
        first = self._received
        if isinstance(item, Failure):
            self._gaps.add(np.array([item.id]))
            self._received += 1
            self._fail([replace(item, seq=first)])
            return
        if len(item) == 0:
            return
        self._gaps.add(item.ids)
        self._received += len(item)
        numbered = replace(item, seq=np.arange(first, self._received))
        stamped = numbered.stamped("received", self._desk.clock())
        good, bad = isolate("source", self._conform, stamped)
        self._fail(bad)
        if good is not None:
            self._dispatcher.offer(good)

    def _fail(self, failures: list[Failure]) -> None:
        for parts in encode_failed(self._run.run_id, failures):
            self._desk.send(self._tracker, parts, to_role="tracker")

    def _drop(self, late: list[Batch]) -> None:
        if late:
            for parts in encode_dropped(self._run.run_id, concatenate(late), LATE):
                self._desk.send(self._tracker, parts, to_role="tracker")

    def _hear_worker(self) -> None:
        received = self._work.receive()
        if received is None or not isinstance(body := received[1].body, CreditBody):
            return
        worker = received[0]
        if worker not in self._started:
            self._started.add(worker)
            self._work.send(encode_start(self._run), to=worker)
        self._dispatcher.credit(worker, body.n)

    def _hear_tracker(self) -> None:
        received = self._acks.receive()
        if received is None or not isinstance(body := received[1].body, AckBody):
            return
        if body.run_id == self._run.run_id:
            self._dispatcher.acknowledge(body.seq)

    def _obey(self, reader: Reader) -> None:
        for what, data in self._desk.commands():
            if what == "go":
                reader.start()
            elif what == "stop":
                self._stop_reason = str(data["reason"])
                reader.stop()
            elif what == "abort" and not self._stopped:
                self._stop_reason = str(data["reason"])
                reader.stop()
                self._tell_end(aborted=True)

    def _send(self) -> None:
        while (order := self._dispatcher.next()) is not None:
            worker, batch = order
            stamped = batch.stamped("sent", self._desk.clock())
            try:
                self._work.send(encode_batch(self._run.run_id, stamped), to=worker)
            except PipelineError:  # it has died; the supervisor sees it and ends the run
                return

    def _close_run(self, error: BaseException | None) -> None:
        if error is not None:
            kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
            self._stop_reason = f"source: {kind}{' '.join(str(error).split())}"
            self._desk.report("broken", reason=self._stop_reason)
        self._tell_end(aborted=False)

    def _tell_end(self, *, aborted: bool) -> None:
        self._stopped = True
        loss = Loss(expected=self._run.expected, received=self._received, missed=self._gaps.missed)
        stop = RunStop(run_id=self._run.run_id, reason=self._stop_reason, loss=loss)
        body = StopBody(stop=stop, aborted=aborted)
        self._desk.send(self._tracker, encode(body), to_role="tracker")
