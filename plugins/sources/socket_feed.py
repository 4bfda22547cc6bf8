"""The feed of a detector stream over ZeroMQ: messages of one socket, or of several in turn."""

from collections.abc import Sequence
from typing import Literal

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.transport.links import check_bind
from phasewatch.plugins.raw_socket import RawSocket, waiting

HIGH_WATER = 16  # messages that wait here; the others wait at the sender, or are dropped there
MOST_SOCKETS = 64

Parts = list[memoryview]


def addresses_of(target: str, scheme: str) -> list[str]:
    """Return the addresses, separated by commas, in the target of a URI.

    Raises
    ------
    PipelineError
        One is no address, or there are more than `MOST_SOCKETS`.
    """
    addresses = [address.strip() for address in target.split(",")]
    for address in addresses:
        if not address.startswith(("tcp://", "ipc://")):
            raise PipelineError(f"{scheme}:{target}: {address!r} is not tcp://HOST:PORT")
    if len(addresses) > MOST_SOCKETS:
        raise PipelineError(f"{scheme}: {len(addresses)} addresses; at most {MOST_SOCKETS}")
    return addresses


class SocketFeed:
    """Messages as (socket, parts), parts being where ZeroMQ received them.

    Parameters
    ----------
    addresses
        One a socket; the sockets are numbered in this order.
    kind
        ``pull``, or ``sub`` to every topic.
    bind
        Bind instead of connecting; loopback and ipc only.

    Attributes
    ----------
    address
        Where it is connected or bound; once open, with the port that was free.
    """

    def __init__(
        self, addresses: Sequence[str], kind: Literal["pull", "sub"], *, bind: bool = False
    ) -> None:
        for address in addresses if bind else ():
            check_bind(address)
        self.address = ",".join(addresses)
        self._kind, self._bind = kind, bind
        self._sockets: list[RawSocket] = []
        self._turn: list[int] = []

    def open(self) -> None:
        """Connect, or bind."""
        try:
            for address in self.address.split(","):
                socket = RawSocket(self._kind, address, bind=self._bind, hwm=HIGH_WATER)
                self._sockets.append(socket)
        except PipelineError:
            self.close()
            raise
        self.address = ",".join(socket.address for socket in self._sockets)

    def receive(self, timeout_ms: int) -> tuple[int, Parts] | None:
        """Return the next message and its socket, waiting at most `timeout_ms`."""
        if not self._turn:
            self._turn = waiting(self._sockets, timeout_ms)
        if not self._turn:
            return None
        k = self._turn.pop(0)
        parts = self._sockets[k].views()
        return None if parts is None else (k, parts)

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets:
            socket.close()
        self._sockets, self._turn = [], []
