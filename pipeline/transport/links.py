"""Links: ZeroMQ sockets that speak our messages, polled together.

A socket binds to loopback or to ipc; where other hosts could reach it, it takes keys
(`phasewatch.pipeline.transport.keys`), and with keys every tcp link is encrypted. What a peer sends
is checked by `decode`; a message that fails is counted on the link and otherwise as if it had not
come, so that one hostile peer does not stop the others.
"""

import os
import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Literal, Self

import structlog
import zmq

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import LIMITS, Message, MessageError, Part, decode
from phasewatch.pipeline.transport.keys import Guard, Keys

Kind = Literal["push", "pull", "router", "dealer", "pub", "xpub", "sub"]
KINDS = 32  # kinds of errors remembered per link; a peer could make up any number
LONGEST = 500  # characters of an error, which may quote the peer
# A host that is gone is found out within 20 s, by probes of ZeroMQ and, behind a firewall that
# forgets idle connections, of tcp; who lost it tries again after 0.1 s, then ever less often.
KEEPALIVE = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 30,
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 3,
}
TCP_OPTIONS = {
    **KEEPALIVE,
    zmq.HEARTBEAT_IVL: 5_000,
    zmq.HEARTBEAT_TIMEOUT: 15_000,
    zmq.HEARTBEAT_TTL: 20_000,
    zmq.HANDSHAKE_IVL: 10_000,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 5_000,
}
# A part that is sent without a copy comes back to a thread of this process, which takes the
# interpreter from the one at work: dearer than to copy what is smaller (1 kHz: p99 7.2 to 6.9 ms).
COPIED = 1 << 20
_PARTICULARS = re.compile(r"""'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)|\d+""")
log = structlog.get_logger(__name__)


class Link:
    """One socket. `rejected` counts the messages that were not ours, `last_error` says why."""

    def __init__(self, socket: "zmq.Socket[bytes]", kind: Kind, address: str) -> None:
        self.socket, self.kind, self.address = socket, kind, address
        self.rejected = 0
        self.last_error = ""
        self._kinds: set[str] = set()

    def send(self, parts: Sequence[Part], *, to: bytes | None = None) -> None:
        """Send a message; waits where the high-water mark of the link is reached."""
        frames = list(parts) if to is None else [to, *parts]
        try:
            self.socket.send_multipart(frames, copy=False)
        except zmq.ZMQError as error:
            raise PipelineError(f"cannot send on {self.address}: {error.strerror}") from None

    def offer(self, parts: Sequence[Part], *, to: bytes | None = None) -> bool:
        """Send a message if that is possible without waiting; tell whether it was."""
        frames = list(parts) if to is None else [to, *parts]
        try:
            self.socket.send_multipart(frames, flags=zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True

    def writable(self, timeout_ms: int) -> bool:
        """Wait until `offer` would succeed, at most `timeout_ms`; tell whether it would."""
        return bool(self.socket.poll(timeout_ms, zmq.POLLOUT))

    @property
    def waiting(self) -> bool:
        """Whether a message can be received without waiting."""
        return bool(int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def receive(self) -> tuple[bytes, Message] | None:
        """Return (sender, message), sender being empty but on a router; None if it is not ours.

        Waits for a message; call it on a link that `Transport.poll` returned.
        """
        frames = [frame.buffer for frame in self.socket.recv_multipart(copy=False)]
        sender = b""
        if self.kind == "router":
            sender, frames = bytes(frames[0]), frames[1:]
        try:
            return sender, decode(frames)
        except MessageError as error:
            self.refuse(str(error))
            return None

    def drain(self, most: int) -> Iterator[tuple[bytes, Message]]:
        """Yield what `receive` gives of at most `most` messages, as long as there are; never waits.

        What is not ours counts too, so that no peer can hold us up.
        """
        for _ in range(most):
            if not self.waiting:
                return
            received = self.receive()
            if received is not None:
                yield received

    def subscriptions(self) -> Iterator[bool]:
        """Yield, on an xpub, True for each subscription that came and False for each that went.

        Never waits, and gives at most 1000 at a time, so that no peer can hold it up.
        """
        for _ in range(1000):
            try:
                said = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if said[:1] in (b"\0", b"\1"):  # anything else a peer has made up
                yield said[:1] == b"\1"

    def refuse(self, error: str) -> None:
        """Count a message that is not good; log the first of each kind and the 1st, 2nd, 4th, 8th.

        So a flood stays readable.
        """
        error = error[:LONGEST]
        self.rejected += 1
        self.last_error = error
        kind = _PARTICULARS.sub("_", error)
        new = kind not in self._kinds and len(self._kinds) < KINDS
        if new:
            self._kinds.add(kind)
        if new or self.rejected.bit_count() == 1:
            log.warning("message refused", link=self.address, error=error, count=self.rejected)


class Wakeup:
    """Lets a thread end the wait of `Transport.poll`."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)

    def set(self) -> None:
        """Wake."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Forget that it was set."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return


class Transport:
    """All links of one process; a context manager that closes them.

    On a regular exit what was sent is still delivered, for at most `linger_s`; after an exception
    it is discarded. With `keys` every tcp link is encrypted and lets in only who is known.
    """

    def __init__(self, *, linger_s: float = 30.0, keys: Keys | None = None) -> None:
        self._context = zmq.Context()
        self._links: list[Link] = []
        self._wakeups: list[Wakeup] = []
        self._linger_ms = int(linger_s * 1000)
        self._keys = keys
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(linger_ms=self._linger_ms if kind is None else 0)

    def link(
        self, kind: Kind, address: str, *, bind: bool, hwm: int = 64, identity: bytes | None = None
    ) -> Link:
        """Open a link; with port 0 or ``*`` its `address` tells the port that was free.

        Raises
        ------
        PipelineError
            The address is public and there are no keys, is in use, or is not an address.
        """
        if bind:
            check_bind(address, self._keys)
        socket = self._context.socket(getattr(zmq, kind.upper()))
        socket.set_hwm(hwm)
        socket.copy_threshold = COPIED
        socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.array_bytes)
        if kind == "router":
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # who is started again has the same name
        if kind == "xpub":
            socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # of every subscriber, not of the first only
        if identity is not None:
            socket.setsockopt(zmq.IDENTITY, identity)
        try:
            if address.startswith("tcp:"):
                self._prepare(socket, bind=bind)
            actual = attach(socket, address, bind=bind)
        except (PipelineError, zmq.ZMQError):
            socket.close(linger=0)
            raise
        if kind == "sub":
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._links.append(Link(socket, kind, actual))
        return self._links[-1]

    def _prepare(self, socket: "zmq.Socket[bytes]", *, bind: bool) -> None:
        for option, value in TCP_OPTIONS.items():
            socket.setsockopt(option, value)
        if self._keys is None:
            return
        self._keys.secure(socket, bind=bind)
        if bind and self._guard is None:  # before the first peer can come
            self._guard = Guard(self._context, self._keys)

    def wakeup(self) -> Wakeup:
        """Return a new way for a thread to end a wait."""
        self._wakeups.append(Wakeup())
        return self._wakeups[-1]

    def poll(self, sources: Sequence[Link | Wakeup], timeout_ms: int) -> list[Link | Wakeup]:
        """Return those of `sources` that have something, waiting at most `timeout_ms`."""
        handles = [s.socket if isinstance(s, Link) else s.fd for s in sources]
        poller = zmq.Poller()
        for handle in handles:
            poller.register(handle, zmq.POLLIN)
        ready = dict(poller.poll(timeout_ms))
        return [s for s, handle in zip(sources, handles, strict=True) if handle in ready]

    def close(self, *, linger_ms: int = 0) -> None:
        """Close all links."""
        for link in self._links:
            link.socket.close(linger=linger_ms)
        for wakeup in self._wakeups:
            os.close(wakeup.fd)
        self._links, self._wakeups = [], []
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        self._context.term()


def attach(socket: "zmq.Socket[bytes]", address: str, *, bind: bool) -> str:
    """Bind or connect `socket`; return its address, with the port that was free.

    Raises
    ------
    PipelineError
        The address is in use, or is not an address.
    """
    try:
        (socket.bind if bind else socket.connect)(address)
    except zmq.ZMQError as error:
        verb = "bind" if bind else "connect"
        raise PipelineError(f"cannot {verb} {address}: {error.strerror}") from None
    actual = socket.getsockopt(zmq.LAST_ENDPOINT) if bind else address
    return actual.decode().rstrip("\0") if isinstance(actual, bytes) else str(actual)


def check_bind(address: str, keys: Keys | None = None) -> None:
    """Refuse to bind to anything but ipc, inproc and loopback, and with `keys` any tcp address.

    Raises
    ------
    PipelineError
        The address could be reached from another host, and there are no keys.
    """
    scheme, _, rest = address.partition("://")
    if scheme in ("ipc", "inproc"):
        return
    host = rest.rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if scheme != "tcp" or not (loopback or keys):
        raise PipelineError(
            f"{address}: without keys sockets bind to loopback only, e.g. tcp://127.0.0.1:5555 or "
            'ipc://FILE; `phasewatch keys FOLDER` and [runtime] keys = "FOLDER" open it'
        )
