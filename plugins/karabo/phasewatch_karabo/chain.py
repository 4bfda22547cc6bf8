"""The node's side of the chain: its control socket, the links to it, its process.

All of it may wait, so the device calls it from threads; only `Feed.offer` never does.
"""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phasewatch.pipeline.health import Status, parse_status
from phasewatch.pipeline.messages import Message, Part
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.request import Caller

FRAMES = 16  # messages that wait for the chain: 8 frames, each with a start
RESULTS = 1000  # messages that wait for us: the chain drops what is not taken 1 s after its end
POLL_MS = 200
GRACE_S = 10.0


def keys_in(folder: str) -> Keys | None:
    """Return the keys in `folder`; None where it is empty text: all sockets on this host."""
    return Keys.load(Path(folder)) if folder else None


def ask(
    address: str, keys: Keys | None, what: str, timeout_s: float, **data: Any
) -> dict[str, Any]:
    """Return the answer of the chain at `address`; raises as `Caller.ask` does."""
    with Caller(address, keys=keys) as caller:
        return caller.ask(what, timeout_s=timeout_s, **data)


def status(address: str, keys: Keys | None, timeout_s: float) -> Status:
    """Return how the run at `address` is; raises as `Caller.ask` does."""
    return parse_status(ask(address, keys, "status", timeout_s), where=address)


class Feed:
    """Sends frames to the chain, which binds ``[source] uri = "zmq:ADDRESS"``."""

    def __init__(self, address: str, keys: Keys | None) -> None:
        self._transport = Transport(linger_s=0.0, keys=keys)
        try:
            self._link = self._transport.link("push", address, bind=False, hwm=FRAMES)
        except BaseException:
            self._transport.close()
            raise

    def offer(self, parts: Sequence[Part]) -> bool:
        """Send a message if there is room; tell whether it was."""
        return self._link.offer(parts)

    def close(self) -> None:
        """Close; what the chain has not taken is lost."""
        self._transport.close()


class Listener:
    """Hands each document that the chain publishes to `take`, in a thread, until `close`."""

    def __init__(self, address: str, keys: Keys | None, take: Callable[[Message], None]) -> None:
        self._transport = Transport(linger_s=0.0, keys=keys)
        try:
            self._link = self._transport.link("sub", address, bind=False, hwm=RESULTS)
            self._over = self._transport.wakeup()
        except BaseException:
            self._transport.close()
            raise
        self._take = take
        self._thread = threading.Thread(target=self._listen, name="results", daemon=True)
        self._thread.start()

    @property
    def rejected(self) -> int:
        """How many messages were not of our protocol."""
        return self._link.rejected

    def close(self) -> None:
        """End the thread and close the socket; not from that thread."""
        self._over.set()
        self._thread.join()
        self._transport.close()

    def _listen(self) -> None:
        while self._over not in (ready := self._transport.poll([self._link, self._over], POLL_MS)):
            if self._link in ready and (received := self._link.receive()) is not None:
                self._take(received[1])


class Program:
    """``phasewatch run``, started by the node."""

    def __init__(self, executable: str, configuration: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        try:
            self._process = subprocess.Popen(
                [executable, "run", configuration],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            self._said.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """Return the last line it said."""
        size = self._said.seek(0, 2)
        self._said.seek(max(0, size - 4096))
        lines = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def end(self) -> None:
        """Let it end in order, then make it."""
        if self.code is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()
