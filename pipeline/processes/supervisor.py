"""The supervisor: starts the processes of a run, listens to them, and says when it is over.

A process that dies is started again, within bounds, and the others are told: ``gone``, and ``back``
when the new one has come. One that never was ready, and the sinks, which are all that is kept of a
run, end it instead.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from phasewatch.pipeline import logs
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.build import check_model, settled
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import Event, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.observe import Observers, open_observers
from phasewatch.pipeline.processes.children import Children
from phasewatch.pipeline.processes.control import Control
from phasewatch.pipeline.processes.desk import Clock
from phasewatch.pipeline.processes.guests import Guests
from phasewatch.pipeline.processes.layout import Desks, addresses, roles
from phasewatch.pipeline.processes.view import MAX_EVENTS, View, status
from phasewatch.pipeline.restarts import Restarts
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.ring import new_memory

log = structlog.get_logger(__name__)

ABORT_NS = 10_000_000_000
GRACE_S, GRACE_AFTER_ERROR_S = 5.0, 0.5
AWAY_NS = 5_000_000_000  # between two turns, which take 0.1 s: we were stopped, and they may be
STUCK_NS = 60_000_000_000  # without a word; compiling for a new kind of frame took 12 s


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: what was found, and what went wrong (None: nothing).

    `next`: the configuration of the run that is to begin now, if one was loaded.
    """

    stop: RunStop | None
    error: str | None
    next: Config | None = None


def supervise(
    config: Config,
    *,
    on_update: Callable[[View], None] = lambda view: None,
    clock: Clock = time.monotonic_ns,
    on_start: Callable[[dict[str, int]], None] = lambda pids: None,
) -> Outcome:
    """Run `config` as processes to its end; return how it ended.

    `on_update` is called after each message and at least every 0.1 s; `on_start` with the process
    ids by role, at the start and whenever one has changed. Where the chain could not go on, the
    outcome has an error; what was written before stays.

    Raises
    ------
    ModelError, PipelineError
        The model is not there or is not made for these settings: nothing was begun.
    """
    check_model(config)
    config = settled(config)
    runtime = config.runtime
    keys = None if runtime.keys is None else Keys.load(Path(runtime.keys))
    with (
        tempfile.TemporaryDirectory(prefix="phasewatch-") as folder,
        Transport(linger_s=2.0, keys=keys) as transport,
        open_observers(config) as observers,
    ):
        hub = transport.link("router", f"ipc://{folder}/hub", bind=True)
        control = transport.link("router", runtime.control, bind=True)
        gate = transport.link("router", runtime.listen, bind=True) if runtime.listen else None
        ring = new_memory()
        grace_s = GRACE_AFTER_ERROR_S
        try:
            children = Children(roles(config), hub.address, ring, keys=runtime.keys)
            desks = Desks(hub, control, gate)
            supervisor = Supervisor(config, transport, desks, clock, children, ring)
            logs.bind(role="supervisor", run=supervisor.view.run_id)
            on_start(children.pids)
            try:
                where = addresses(config, folder)
                outcome = supervisor.loop(where, observers, on_update, on_start)
                grace_s = GRACE_S if outcome.error is None else GRACE_AFTER_ERROR_S
                return outcome
            finally:
                supervisor.control.refuse("load: the run ended before it was tried")
                supervisor.tell_all("finish")
                children.end(grace_s=grace_s)
                supervisor.control.close()
        finally:
            os.close(ring)


class Supervisor:
    """The state of one supervised run."""

    def __init__(
        self,
        config: Config,
        transport: Transport,
        desks: Desks,
        clock: Clock,
        children: Children,
        ring: int,
    ) -> None:
        self._config, self._transport, self._clock = config, transport, clock
        self._desks, self._children, self._ring = desks, children, ring
        self._restarts = Restarts(config.runtime.restarts)
        self.view = View(run_id=uuid.uuid4().hex, control=desks.control.address)
        self._guests = None
        if desks.gate is not None:
            self._guests = Guests(
                desks.gate,
                self.view.book,
                setup=lambda: self._setup(ring=None, again=False),
                gone=lambda name: self._tell("receiver", "gone", role=name),
            )
        self.control = Control(
            desks.control,
            config,
            self.view,
            ring,
            clock=clock,
            stop=self._stop_source,
            reset=self._reset_tracker,
        )
        self._present: set[str] = set()
        self._known = frozenset(roles(config))
        self._alive = set(self._known)  # as far as can be told
        self._not_ready = set(self._known - {"receiver"})
        self._stop: RunStop | None = None
        self._written = False
        self._error = ""
        self._abort_by = 0
        self._began_ns = self._checked_ns = clock()
        self._draining = False  # the source broke, the chain did not: what came comes through
        self._interrupted = False

    def loop(
        self,
        where: dict[str, str],
        observers: Observers,
        on_update: Callable[[View], None],
        on_start: Callable[[dict[str, int]], None],
    ) -> Outcome:
        """Listen until the run is over."""
        self._where = where
        while not self._over():
            try:
                hub, control, gate = self._desks.hub, self._desks.control, self._desks.gate
                links = [hub, control] if gate is None else [hub, control, gate]
                ready = self._transport.poll(links, timeout_ms=100)
                if control in ready:
                    self.control.hear()
                self.control.check()
                while hub.waiting:  # all, before anyone is thought to hang
                    self._hear()
                if self._guests is not None:
                    self._guests.hear(self._clock())
                    self._guests.check(self._clock())
                self._check()
                if self._start_again():
                    on_start(self._children.pids)
                if observers.due(now := self._clock()):
                    observers.update(status(self.view, now))
                on_update(self.view)
            except KeyboardInterrupt:
                if self._interrupted or self._not_ready or "receiver" not in self._present:
                    raise  # before all are ready nothing was read
                self._interrupted, self.control.loaded = True, False
                self._stop_source("stopped by the user")
        error = self._error or None
        return Outcome(self._stop, error, None if error else self.control.next())

    def _over(self) -> bool:
        if self._error and not self._draining and self._abort_by < self._clock():
            return True
        return self._stop is not None and (self._written or "sink" not in self._present)

    def tell_all(self, what: str) -> None:
        """Send `what` to every process that said hello."""
        for role in sorted(self._present):
            self._tell(role, what)
        if self._guests is not None:
            self._guests.tell(what)

    def _stop_source(self, reason: str) -> None:
        self.view.stopping = reason
        if self.view.source:
            self._tell("receiver", "stop", reason=reason)
        else:
            self._error = f"{reason} before the source had begun"

    def _reset_tracker(self) -> None:
        self._tell("tracker", "reset", n=self.control.resets)

    def _tell(self, to: str, what: str, /, **data: Any) -> None:
        try:
            self._desks.hub.send(encode(ControlBody(what=what, data=data)), to=to.encode())
        except PipelineError:  # it has ended; `_check` says so
            self._present.discard(to)

    def _hear(self) -> None:
        received = self._desks.hub.receive()
        if received is None or not isinstance(body := received[1].body, ControlBody):
            return
        role = received[0].decode(errors="replace")
        if role not in self._known:
            self._desks.hub.refuse(f"nobody here is called {role!r}")
            return
        try:
            self._understand(role, body)
        except (KeyError, TypeError, ValueError) as error:  # also pydantic's
            self._desks.hub.refuse(f"{role}: {body.what}: {type(error).__name__}: {error}")

    def _understand(self, role: str, body: ControlBody) -> None:
        data = body.data
        self.view.book.heard(role, self._clock())
        if body.what == "hello":
            self._welcome(role)
        elif body.what == "health":
            self.view.health[role] = data
            self.view.book.report(role, data, self._clock())
        elif body.what == "ready":
            self._not_ready.discard(role)
            self.view.classes = tuple(data.get("classes", self.view.classes))
            # One that was started again does not know.
            if role == "tracker" and self.control.resets:
                self._reset_tracker()
            self._go()
        elif body.what == "started":
            self.view.expected, self.view.source = data["expected"], data["source"]
            self.view.items = dict(data["items"])
            if self.view.stopping:  # one that was started again does not know
                self._stop_source(self.view.stopping)
            self._go()
        elif body.what == "event":
            event = Event.model_validate(data["event"], strict=False)
            self.view.events.append(event)
            del self.view.events[:-MAX_EVENTS]
            self.view.n_events += 1
        elif body.what == "tracked":
            self._stop = self._stop or RunStop.model_validate(data["stop"], strict=False)
            self._written |= not data["begun"]
        elif body.what == "written":
            self._stop = RunStop.model_validate(data["stop"], strict=False)
            self._written = self.view.written = True
        elif body.what == "broken":
            self._error, self._draining = self._error or str(data["reason"]), True
        elif body.what == "error":
            self.view.book.failed(role, str(data["text"]))
            if not self._lasting(role) or data.get("final"):
                self._fail(str(data["text"]))

    def _welcome(self, role: str) -> None:
        self._present.add(role)
        again = self.view.book.restarts.get(role, 0) > 0
        self._tell(role, "configure", **self._setup(ring=self._ring, again=again))
        if again:
            for other in sorted(self._present - {role}):
                self._tell(other, "back", role=role)
            if self._guests is not None:
                self._guests.tell("back", role=role)

    def _setup(self, *, ring: int | None, again: bool) -> dict[str, Any]:
        return {
            "run_id": self.view.run_id,
            "config": self._config.model_dump(mode="json"),
            "addresses": self._where,
            "ring": ring,
            "again": again,
        }

    def _go(self) -> None:
        if not self._not_ready:
            self._tell("receiver", "go")

    def _lasting(self, role: str) -> bool:
        """Tell whether `role` is started again when it ends; not if it never began."""
        return role != "sink" and role not in self._not_ready and bool(self.view.source)

    def _check(self) -> None:
        """Note who has ended or hangs, tell the others; start it again or fail."""
        now = self._clock()
        if abs(now - self._checked_ns) > AWAY_NS:
            self._began_ns = now
            for role in self._present:
                self.view.book.heard(role, now)
        self._checked_ns = now
        for role, heard in self.view.book.heard_ns.items():
            if role in self._alive and now - heard > STUCK_NS and self._lasting(role):
                self.view.book.failed(role, f"said nothing for {STUCK_NS // 10**9} s")
                self._children.kill(role)
        mute = sorted(self._alive - self.view.book.heard_ns.keys())
        if mute and now - self._began_ns > STUCK_NS:
            self._fail(f"{mute[0]} said nothing for {STUCK_NS // 10**9} s after its start")
        codes = {r: c for r, c in self._children.ended().items() if r in self._alive}
        for role in codes:
            self._present.discard(role)
            self._alive.discard(role)
            lasting = self._lasting(role) and not self._error
            for other in sorted(self._present):
                self._tell(other, "gone" if lasting else "lost", role=role)
            if codes[role] == 0:
                continue
            text = f"{role} ended unexpectedly (exit code {codes[role]})"
            if role not in self.view.book.heard_ns:
                self._fail(f"{role} did not start")
            elif not lasting:
                self._fail(text)
            elif not self._restarts.died(role, now):
                why = self.view.book.errors.get(role, f"exit code {codes[role]}")
                limit = self._config.runtime.restarts
                again = f"more than {limit} times in a minute ([runtime] restarts)"
                self._fail(f"{role} ended {again}: {why}" if limit else text)
            else:
                self.view.book.errors.setdefault(role, text)
                self._children.forget(role)

    def _start_again(self) -> bool:
        """Start who is due; tell whether there was one."""
        due = self._restarts.due(self._clock())
        for role in due:
            self.view.book.restarted(role)
            self.view.book.heard(role, self._clock())
            log.warning("started again", process=role, why=self.view.book.errors.get(role))
            self._children.start(role)
            self._alive.add(role)
        return bool(due)

    def _fail(self, error: str) -> None:
        if self._error and not self._draining:
            return
        self._error, self._draining = self._error or error, False
        if "tracker" not in self._present or not self.view.source:
            return
        if "receiver" in self._present:  # it knows what it has received, and tells the tracker
            self._tell("receiver", "abort", reason=error)
        else:
            health = self.view.health.get("receiver", {})
            counts = {name: int(health.get(name, 0)) for name in ("received", "missed")}
            self._tell("tracker", "abort", reason=error, **counts)
        self._abort_by = self._clock() + ABORT_NS
