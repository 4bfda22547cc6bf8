"""The sockets of a client of a Karabo bridge: REQ, PULL and SUB.

A request is answered by a train, as soon as there is one. The request for the next is sent when a
train came, before it is worked on, so that it is on its way meanwhile. It is sent again only when
the connection was lost: a server that is slow would answer both, and the first answer be discarded.
"""

from typing import Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.transport.links import TCP_OPTIONS, attach

Kind = Literal["REQ", "PULL", "SUB"]
REQUEST = b"next"
HIGH_WATER = 2  # trains; one of a 1M detector has 268 MB
MAX_PART = 1 << 31  # bytes, which karabo_bridge itself takes
_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED
_STATES: dict[int, str] = {
    _UP: "a server is there",
    _DOWN: "the connection was lost, or is not wanted: another type of socket?",
    zmq.EVENT_CONNECT_RETRIED: "nobody answers",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "what is there is no ZeroMQ socket",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "what is there is no such socket",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the server wants keys",
}


class BridgeFeed:
    """Trains from the server at `address`, each the parts of a message.

    Attributes
    ----------
    address
        Where it connects to.
    state
        How the connection is, in words.
    """

    def __init__(self, address: str, kind: Kind) -> None:
        self.address = address
        self.state = "nobody answers"
        self._kind = kind
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._asked = self._up = False

    def open(self) -> None:
        """Connect."""
        self._context = zmq.Context()
        self._socket = self._context.socket(getattr(zmq, self._kind))
        self._socket.set_hwm(HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART)
        if self._kind == "REQ":
            self._socket.setsockopt(zmq.REQ_RELAXED, 1)
            self._socket.setsockopt(zmq.REQ_CORRELATE, 1)
        if self.address.startswith("tcp:"):
            for option, value in TCP_OPTIONS.items():
                self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(sum(_STATES))
        try:
            attach(self._socket, self.address, bind=False)
        except PipelineError:
            self.close()
            raise
        if self._kind == "SUB":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")

    def receive(self, timeout_ms: int) -> list[memoryview] | None:
        """Return the parts of the next train; where ZeroMQ has them, no copy."""
        self._look()
        # An answer that came before the connection was lost is there by now; to ask again would
        # discard it.
        if not self._socket.poll(0):
            self._ask()
            if not self._socket.poll(timeout_ms):
                return None
        frames = self._socket.recv_multipart(copy=False)
        self._asked = False
        self._ask()
        return [frame.buffer for frame in frames]

    def close(self) -> None:
        """Close the socket."""
        if self._context is not None:
            context, self._context = self._context, None
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
            context.term()

    def _ask(self) -> None:
        if self._kind == "REQ" and not self._asked:
            try:
                self._socket.send(REQUEST, zmq.NOBLOCK)
            except zmq.Again:
                return
            self._asked = True

    def _look(self) -> None:
        """Take note of what became of the connection."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            self.state = _STATES.get(event, self.state)
            if event == _UP:
                self._up = True
            elif event == _DOWN and self._up:
                self._asked = self._up = False  # the request is lost with it
