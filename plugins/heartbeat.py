"""The observer ``[heartbeat]``: one message a second that says how a run is, to subscribers (SUB).

A ``control`` message of our protocol, ``what = "heartbeat"``, its data ``{n, t_ns, status}``: how
many there were before, the time in ns UTC, and the document of ``phasewatch status``. Who does not
take them in time loses the later ones; nobody can hold up the run.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.health import Status
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport

HIGH_WATER = 8  # seconds kept for a slow subscriber

_log = structlog.get_logger(__name__)


def open_observer(*, address: str, keys: str | None = None) -> "Heartbeat":
    """Publish once a second how a run is.

    Parameters
    ----------
    address
        Where to bind, ``tcp://127.0.0.1:5560``; port 0 is a free one, told in the log.
    keys
        Folder of keys (`phasewatch keys`), which it takes to be open to other hosts.
    """
    return Heartbeat(address, None if keys is None else Keys.load(Path(keys)))


class Heartbeat:
    """Publishes what it is told.

    Attributes
    ----------
    address
        Where it is bound, with the port that was free.
    """

    def __init__(
        self, address: str, keys: Keys | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock, self._n = clock, 0
        self._transport = Transport(linger_s=0.0, keys=keys)
        try:
            self._link = self._transport.link("pub", address, bind=True, hwm=HIGH_WATER)
        except BaseException:
            self._transport.close()
            raise
        self.address = self._link.address
        _log.info("heartbeat", address=self.address)

    def update(self, status: Status) -> None:
        """Publish `status`; never waits."""
        document = status.model_dump(mode="json")
        data = {"n": self._n, "t_ns": self._clock(), "status": document}
        self._link.offer(encode(ControlBody(what="heartbeat", data=data)))
        self._n += 1

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()
