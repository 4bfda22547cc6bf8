"""A process's side of the supervisor: it asks for its work, reports, and hears what to do."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from phasewatch.pipeline import logs
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.messages import Part, encode
from phasewatch.pipeline.transport.links import Link, Transport

Clock = Callable[[], int]
HEALTH_EVERY_NS = 200_000_000
SILENT_NS = 30_000_000_000  # building and compiling for a new kind of frame took 12 s
TRACKER = b"tracker"  # its name at the sinks


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process is told at its start: the run, the configuration, who listens where.

    `ring` is the descriptor of the shared memory; None on another host. `again`: an earlier process
    of this role has died.
    """

    run_id: str
    config: Config
    addresses: dict[str, str]
    ring: int | None = None
    again: bool = False


class Desk:
    """The link to the supervisor. `finished` turns true when the run is over.

    A `guest` is on another host: it does not notice that the supervisor has died, so that is taken
    to be so when nothing was heard for `SILENT_NS` (the supervisor says something every second).
    """

    def __init__(
        self,
        transport: Transport,
        address: str,
        role: str,
        clock: Clock = time.monotonic_ns,
        *,
        guest: bool = False,
    ) -> None:
        self.transport, self.role, self.clock = transport, role, clock
        self._guest, self._heard_ns = guest, 0
        self.link = transport.link("dealer", address, bind=False, identity=role.encode())
        self.finished = False
        self._said: list[tuple[str, dict[str, Any]]] = []
        self._lost: set[str] = set()
        self._report: Callable[[], dict[str, Any]] = dict
        self._next_health = 0

    def configure(self) -> Setup:
        """Say hello; wait for the set-up."""
        self.report("hello")
        while True:
            if self._guest:  # it may be there before the run, and say it in vain
                self.offer("hello")
            for what, data in self.commands(timeout_ms=1000):
                if what == "configure":
                    config = Config.model_validate(data["config"])
                    addresses, ring = dict(data["addresses"]), data["ring"]
                    return Setup(data["run_id"], config, addresses, ring, bool(data["again"]))

    def commands(self, timeout_ms: int = 0) -> list[tuple[str, dict[str, Any]]]:
        """Return what the supervisor said since the last call, also while something was sent."""
        self._listen(timeout_ms)
        said, self._said = self._said, []
        return said

    def send(self, link: Link, parts: Sequence[Part], *, to_role: str = "") -> None:
        """Send on `link`, waiting for room and, where the peer died, for the next one.

        Who waits is alive, and says so. Given up when the run is over or `to_role` is lost: it has
        died and is not started again.
        """
        while not link.offer(parts) and not self.finished and to_role not in self._lost:
            link.writable(timeout_ms=20)
            self._listen(0)
            self.health()

    def report(self, what: str, **data: Any) -> None:
        """Tell the supervisor."""
        self.link.send(encode(ControlBody(what=what, sender=self.role, data=data)))

    def ready(self, **data: Any) -> None:
        """Say that all is built; what is there by now is never looked at by the garbage collector.

        It stops a process that has imported torch for 50 ms at a time otherwise.
        """
        gc.collect()
        gc.freeze()
        self.report("ready", **data)

    def offer(self, what: str, **data: Any) -> bool:
        """Tell the supervisor if that is possible without waiting; tell whether it was."""
        return self.link.offer(encode(ControlBody(what=what, sender=self.role, data=data)))

    def health(self, report: Callable[[], dict[str, Any]] | None = None) -> None:
        """Say what `report` gives (None: that of last time) at most every 0.2 s, never waiting."""
        self._report = report or self._report
        now = self.clock()
        if self._guest and now - self._heard_ns > SILENT_NS:
            self._listen(0)  # it may have been said while we were at work
            self.finished |= now - self._heard_ns > SILENT_NS
        if now >= self._next_health:
            self._next_health = now + HEALTH_EVERY_NS
            self.offer("health", error=logs.last_error(), **self._report())

    def _listen(self, timeout_ms: int) -> None:
        if timeout_ms:
            self.transport.poll([self.link], timeout_ms)
        while self.link.waiting:
            received = self.link.receive()
            self._heard_ns = self.clock()
            if received is None or not isinstance(body := received[1].body, ControlBody):
                continue
            if body.what == "finish":
                self.finished = True
            elif body.what == "lost":
                self._lost.add(str(body.data["role"]))
            else:
                self._said.append((body.what, body.data))
