"""Workers of other hosts: they come, go and fail without harm to the run."""

import re
from collections.abc import Callable
from typing import Any

import structlog

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.health import Book
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes.desk import SILENT_NS
from phasewatch.pipeline.transport.links import Link

NAME = re.compile(r"reducer@[A-Za-z0-9._-]{1,64}")
MOST = 256
DRAIN = 4096  # messages that are heard before it is the others' turn
BEAT_NS = 1_000_000_000
log = structlog.get_logger(__name__)


class Guests:
    """The workers that have come to `gate`.

    `setup` gives what a new one is told; `gone` is called with the name of one that has left.
    """

    def __init__(
        self,
        gate: Link,
        book: Book,
        *,
        setup: Callable[[], dict[str, Any]],
        gone: Callable[[str], None],
    ) -> None:
        self.gate, self._book, self._setup, self._gone = gate, book, setup, gone
        self._names: set[str] = set()
        self._silent: set[str] = set()
        self._next_beat = 0

    def hear(self, now_ns: int) -> None:
        """Take what has come."""
        for sender, message in self.gate.drain(DRAIN):
            if not isinstance(body := message.body, ControlBody):
                continue
            name = sender.decode(errors="replace")
            if body.what == "hello":
                self._admit(name)
            elif body.what == "health" and name in self._silent:  # it was stopped, and is back
                self._silent.discard(name)
                self._names.add(name)
            if name not in self._names:
                continue
            self._book.heard(name, now_ns)
            if body.what == "health":
                self._book.report(name, body.data, now_ns)
            elif body.what in ("bye", "error"):
                self._dismiss(name, str(body.data.get("text", "by itself")))

    def check(self, now_ns: int) -> None:
        """Say that we are alive; do without those that have not said so."""
        for name in [n for n in self._names if now_ns - self._book.heard_ns[n] > SILENT_NS]:
            self._dismiss(name, f"said nothing for {SILENT_NS // 10**9} s")
            self._silent.add(name)
        if now_ns >= self._next_beat:
            self._next_beat = now_ns + BEAT_NS
            self.tell("beat")

    def tell(self, what: str, **data: Any) -> None:
        """Tell all of them."""
        for name in list(self._names):
            self.gate.offer(encode(ControlBody(what=what, data=data)), to=name.encode())

    def _admit(self, name: str) -> None:
        if not NAME.fullmatch(name) or len(self._names) >= MOST:
            return
        if name not in self._names:
            log.info("joined", process=name)
        self._names.add(name)
        self.gate.offer(encode(ControlBody(what="configure", data=self._setup())), to=name.encode())

    def _dismiss(self, name: str, why: str) -> None:
        log.info("left", process=name, why=why)
        self._names.discard(name)
        self._book.heard_ns.pop(name, None)
        self._gone(name)
