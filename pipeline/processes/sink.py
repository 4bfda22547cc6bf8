"""The sink process: gives the documents of the run to every sink, each once, and says so.

It keeps the position up to which all has been given, with what the tracker remembered there: the
receiver is told the position and answers for nothing below it, a tracker that is started again
begins there. Latencies are counted here, where each item comes once.
"""

from functools import partial

import numpy as np

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.bodies import (
    AckBody,
    CreditBody,
    ReportBody,
    ResumeBody,
    StartBody,
    StopBody,
)
from phasewatch.pipeline.documents import Event, RunStop
from phasewatch.pipeline.latency import Latency
from phasewatch.pipeline.messages import Message, Part, encode
from phasewatch.pipeline.plugin import Sink, open_sink
from phasewatch.pipeline.processes.desk import TRACKER, Desk, Setup
from phasewatch.pipeline.processes.outlets import Outlet
from phasewatch.pipeline.transport.links import Transport

ACK_EVERY_NS = 200_000_000  # also without news: the receiver sees that nothing is being waited for
MAX_EVENTS = 1000  # in the stop of a run; every one goes to the sinks as it happens


def serve(transport: Transport, desk: Desk, setup: Setup) -> None:
    """Run until the supervisor says that the run is over."""
    inbox = transport.link("router", setup.addresses["results"], bind=True, hwm=8)
    acks = transport.link("push", setup.addresses["acks"], bind=False, hwm=8)
    sinks = SinkProcess(desk, setup)
    acknowledged, due_ns = 0, 0
    try:
        sinks.open()
        while not desk.finished:
            ready = transport.poll([inbox, desk.link], timeout_ms=100)
            received = inbox.receive() if inbox in ready else None
            if received is not None and received[0] != TRACKER:
                inbox.refuse("a message to the sinks that is not the tracker's")
            elif received is not None:
                if isinstance(received[1].body, CreditBody):
                    inbox.offer(sinks.resume(), to=TRACKER)
                else:
                    sinks.take(received[1])
            desk.commands()
            news = sinks.position > acknowledged or desk.clock() >= due_ns
            # Never waits; what was not sent now, the next one says.
            if news and acks.offer(encode(AckBody(run_id=setup.run_id, seq=sinks.position))):
                acknowledged, due_ns = sinks.position, desk.clock() + ACK_EVERY_NS
            desk.health(lambda: {**sinks.health(), "rejected": inbox.rejected})
    finally:
        sinks.close()


class SinkProcess:
    """The sinks of one run and how far they are."""

    def __init__(self, desk: Desk, setup: Setup) -> None:
        self._desk, self._run_id, self._config = desk, setup.run_id, setup.config
        self._outlets: list[Outlet] = []
        self._latency = Latency()
        self._events: list[Event] = []
        self._state = np.empty(0, np.uint8)
        self._begun = self._ended = False
        self._written = self._batch_size = 0
        self._first_ns = self._last_ns = 0
        self.position = 0

    def open(self) -> None:
        """Open all sinks."""
        for config in self._config.sink:
            sink = open_sink(config.type, **config.options)
            self._outlets.append(Outlet(sink, config.policy, name=config.type))

    def close(self) -> None:
        """Close all sinks; none is closed twice."""
        while self._outlets:
            self._outlets.pop().close()

    def resume(self) -> list[Part]:
        """Return what a tracker that begins needs to know."""
        body = ResumeBody(run_id=self._run_id, position=self.position)
        return encode(body, {"state": self._state})

    def take(self, message: Message) -> None:
        """Take one document of this run; what was taken before is not taken again."""
        body = message.body
        if isinstance(body, StartBody) and body.run.run_id == self._run_id and not self._begun:
            self._begun = True
            run = message.run()
            for outlet in self._outlets:
                outlet.give(lambda sink: sink.start(run))
            self._desk.ready()
        elif isinstance(body, ReportBody) and body.run_id == self._run_id:
            if body.position > self.position and not self._ended:
                self._give(body, message)
        elif isinstance(body, StopBody) and body.stop.run_id == self._run_id and not self._ended:
            self._ended = True
            stop = self._complete(body.stop)
            for outlet in self._outlets:
                outlet.give(lambda sink: sink.stop(stop))
            self.close()
            self._desk.report("written", stop=stop.model_dump(mode="json"))

    def health(self) -> dict[str, object]:
        """Return what the progress line shows."""
        health: dict[str, object] = {
            "written": self._written,
            "batch": self._batch_size,
            "rate_hz": self._rate(),
            "dropped": sum(outlet.dropped for outlet in self._outlets),
        }
        if self._written:
            total = self._latency.total
            health |= {"p50_ms": total.quantile_ms(0.5), "p99_ms": total.quantile_ms(0.99)}
        return health

    def _give(self, body: ReportBody, message: Message) -> None:
        if body.n:
            batch = message.batch()
            for outlet in self._outlets:
                outlet.batch(batch)
            self._latency.add(batch)
            self._last_ns = self._desk.clock()
            stamp = batch.stamps.get("received")
            self._first_ns = self._first_ns or (self._last_ns if stamp is None else int(stamp[0]))
            self._written, self._batch_size = self._written + body.n, body.n
        if body.failed:
            failures = [Failure(*item) for item in body.failed]
            for outlet in self._outlets:
                outlet.give(lambda sink: sink.failures(failures))
        for reason in dict.fromkeys(reason for _, _, reason in body.dropped):
            items = [(seq, i) for seq, i, why in body.dropped if why == reason]
            for outlet in self._outlets:
                outlet.give(partial(_dropped, items=items, reason=reason))
        for event in body.events:
            if len(self._events) < MAX_EVENTS:
                self._events.append(event)
            for outlet in self._outlets:
                outlet.give(partial(_event, event=event))
            self._desk.offer("event", event=event.model_dump(mode="json"))
        self._state = message.arrays["state"].copy()
        self.position = body.position

    def _complete(self, stop: RunStop) -> RunStop:
        """Return `stop` with what is counted here."""
        return stop.model_copy(
            update={
                "events": tuple(self._events),
                "latency_ms": self._latency.summary(),
                "rate_hz": round(self._rate(), 3),
            }
        )

    def _rate(self) -> float:
        elapsed = self._last_ns - self._first_ns
        return self._written / elapsed * 1e9 if elapsed > 0 else 0.0


def _dropped(sink: Sink, items: list[tuple[int, int]], reason: str) -> None:
    sink.dropped(items, reason)


def _event(sink: Sink, event: Event) -> None:
    sink.event(event)
