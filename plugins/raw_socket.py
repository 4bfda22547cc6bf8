"""ZeroMQ sockets of raw multipart messages, for what is not (or not yet) our protocol.

The load generator announces items on them, and traffic is recorded from them and replayed to them.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import zmq

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.transport.links import KEEPALIVE, attach, check_bind

Kind = Literal["push", "pull", "pub", "sub"]
MAX_PART = 1 << 28  # bytes; a peer that sends a longer part is disconnected


class RawSocket:
    """One socket with a context of its own; a context manager that closes it.

    Parameters
    ----------
    kind
        A ``sub`` socket takes every topic.
    bind
        Bind instead of connecting; loopback and ipc only.
    hwm
        Messages that wait at each side; 0: as many as there are.
    """

    def __init__(self, kind: Kind, address: str, *, bind: bool = False, hwm: int = 0) -> None:
        if bind:
            check_bind(address)
        self._context = zmq.Context()
        self._socket = self._context.socket(getattr(zmq, kind.upper()))
        self._socket.set_hwm(hwm)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART)
        for option, value in KEEPALIVE.items():
            self._socket.setsockopt(option, value)
        try:
            self.address = attach(self._socket, address, bind=bind)
        except PipelineError:
            self.close()
            raise
        if kind == "sub":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(linger_ms=0 if kind else 1000)

    def offer(self, parts: Sequence[bytes]) -> bool:
        """Send a message if that is possible without waiting; tell whether it was."""
        try:
            self._socket.send_multipart(parts, flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def writable(self, timeout_ms: int) -> bool:
        """Wait until `offer` would succeed, at most `timeout_ms`; tell whether it would."""
        return bool(self._socket.poll(timeout_ms, zmq.POLLOUT))

    def receive(self, timeout_ms: int = 0) -> list[bytes] | None:
        """Return the next message, waiting at most `timeout_ms`; None where none came."""
        parts = self.views(timeout_ms)
        return None if parts is None else [bytes(part) for part in parts]

    def views(self, timeout_ms: int = 0) -> list[memoryview] | None:
        """Return the next message as `receive` does, its parts where ZeroMQ has them: no copy."""
        if timeout_ms and not self._socket.poll(timeout_ms):
            return None
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return [frame.buffer for frame in frames]

    def register(self, poller: zmq.Poller) -> "zmq.Socket[bytes]":
        """Have `poller` look for messages too; return what it calls this socket."""
        poller.register(self._socket, zmq.POLLIN)
        return self._socket

    def close(self, *, linger_ms: int = 0) -> None:
        """Close; what was sent is still delivered, for at most `linger_ms`."""
        self._socket.close(linger=linger_ms)
        self._context.term()


def waiting(sockets: Sequence[RawSocket], timeout_ms: int) -> list[int]:
    """Return at which of `sockets` a message waits, waiting at most `timeout_ms` for one."""
    poller = zmq.Poller()
    handles = [one.register(poller) for one in sockets]
    ready = dict(poller.poll(timeout_ms))
    return [k for k, handle in enumerate(handles) if handle in ready]
