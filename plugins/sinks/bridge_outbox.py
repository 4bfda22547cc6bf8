"""What waits to be taken over a Karabo bridge: a socket, served by a thread of its own.

Nobody who takes, or fails to, is ever waited for: what is more than the box holds is dropped, the
oldest first. A request is answered with the oldest that waits, as soon as there is one. That socket
is a ROUTER, which a REQ cannot tell from a REP, since it says whether the client is still there: a
REP would give the message away to one that has gone.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import structlog
import zmq

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Part
from phasewatch.pipeline.transport.links import TCP_OPTIONS, Wakeup, attach, check_bind

Kind = Literal["REP", "PUSH", "PUB"]
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]
Envelope = list[bytes]  # of a request: the answer begins with it
REQUEST, REFUSAL = b"next", b"Error: bad request, not b'next'"
REQUEST_BYTES, REQUEST_PARTS = 1 << 10, 8
POLL_MS = 100
LINGER_S = 1.0  # after the end, for what is still on its way

_log = structlog.get_logger(__name__)


class Outbox:
    """A socket bound to `address`, loopback or ipc, and at most `most` messages that wait for it.

    Attributes
    ----------
    address
        Where it is bound; once open, with the port that was free.
    dropped
        Messages that nobody took in time.
    """

    def __init__(
        self, kind: Kind, address: str, most: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_bind(address)
        self.address, self.dropped = address, 0
        self._kind, self._most, self._clock = kind, most, clock
        self._waiting: deque[Sequence[Part]] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Bind and begin to serve; raises PipelineError."""
        context = zmq.Context()
        socket = context.socket(zmq.ROUTER if self._kind == "REP" else getattr(zmq, self._kind))
        if self._kind == "REP":
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.set_hwm(self._most)
        socket.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES)
        if self.address.startswith("tcp:"):
            for option, value in TCP_OPTIONS.items():
                socket.setsockopt(option, value)
        try:
            self.address = attach(socket, self.address, bind=True)
        except PipelineError:
            socket.close(linger=0)
            context.term()
            raise
        self._wakeup = Wakeup()
        self._thread = threading.Thread(
            target=self._serve, args=(context, socket), name="bridge", daemon=True
        )
        self._thread.start()

    def put(self, parts: Sequence[Part]) -> None:
        """Have a message wait to be taken; never waits itself."""
        with self._lock:
            if len(self._waiting) >= self._most:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(parts)
        self._wakeup.set()

    def close(self) -> None:
        """Close; what waits can still be taken for `LINGER_S`."""
        if self._thread is None:
            return
        thread, self._thread = self._thread, None
        self._closing = True
        self._wakeup.set()
        thread.join()
        os.close(self._wakeup.fd)
        self.dropped += len(self._waiting)
        if self.dropped:
            _log.warning("results were not taken", address=self.address, dropped=self.dropped)

    def _serve(self, context: Context, socket: Socket) -> None:
        client: Envelope | None = None if self._kind == "REP" else []
        until = None
        poller = zmq.Poller()
        poller.register(self._wakeup.fd, zmq.POLLIN)
        while True:
            if self._closing and until is None:
                until = self._clock() + LINGER_S
            if until is not None and (not self._waiting or self._clock() > until):
                break
            ready = zmq.POLLOUT if self._waiting else 0
            poller.register(socket, zmq.POLLIN if client is None else ready)
            poller.poll(POLL_MS)
            self._wakeup.clear()
            if client is None:
                client = _request(socket)
            elif self._waiting:
                client = self._answer(socket, client)
        socket.close(linger=int(LINGER_S * 1000))
        context.term()

    def _answer(self, socket: Socket, client: Envelope) -> Envelope | None:
        """Send `client` the oldest that waits, if it takes it; return who is to have the next."""
        with self._lock:
            if _sent(socket, [*client, *self._waiting[0]]):
                self._waiting.popleft()
        return None if self._kind == "REP" else client


def _request(socket: Socket) -> Envelope | None:
    """Return who has made a request; one that is none is answered so."""
    try:
        frames = socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
    if b"" not in frames or len(frames) > REQUEST_PARTS:
        return None
    end = frames.index(b"") + 1
    if frames[end:] == [REQUEST]:
        return frames[:end]
    _sent(socket, [*frames[:end], REFUSAL])
    return None


def _sent(socket: Socket, parts: Sequence[Part]) -> bool:
    """Send a message if somebody is there who takes it at once; tell whether it was."""
    try:
        socket.send_multipart(parts, zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True
