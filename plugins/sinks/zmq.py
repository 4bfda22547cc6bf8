"""The sink ``zmq``: publishes the documents of a run, in our own protocol, to subscribers (SUB).

A subscriber may come at any time: ``start`` is sent at the beginning, again whenever one comes, and
after every so many batches. What was sent before a subscriber came is lost to it, as is what it
does not take in time; so a short run waits for its subscribers with `wait_for` (one that was there
first connects again only every 0.1 s). No subscriber can hold up the run once it goes on.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import DroppedBody, EventBody, StopBody
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Part, encode, encode_batch, encode_failed, encode_start
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport, check_bind

HIGH_WATER = 64  # messages kept for a slow subscriber; 64 batches of 16 patterns are 16 MB
LINGER_MS = 1000  # what is not taken by then after the end is dropped
POLL_MS = 100

_log = structlog.get_logger(__name__)


def open_sink(
    *,
    address: str,
    every: Annotated[int, Field(ge=1)] = 50,
    wait_for: Annotated[int, Field(ge=0)] = 0,
    wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0,
    keys: str | None = None,
) -> "Publisher":
    """Publish a run.

    Parameters
    ----------
    address
        Where to bind; without `keys` loopback or ipc only.
    every
        Batches after which ``start`` is sent again.
    wait_for
        Subscribers to wait for before the first item, at most `wait_s` seconds.
    keys
        Folder of keys (`phasewatch keys`): the link is encrypted, and only who is known gets in.
    """
    loaded = None if keys is None else Keys.load(Path(keys))
    check_bind(address, loaded)
    return Publisher(address, every, wait_for, wait_s, keys=loaded)


class Publisher:
    """Sink that publishes one run.

    Attributes
    ----------
    address
        Where it is bound; once started, with the port that was free.
    """

    def __init__(
        self,
        address: str,
        every: int,
        wait_for: int,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        keys: Keys | None = None,
    ) -> None:
        self.address = address
        self._every = every
        self._wait_for = wait_for
        self._wait_s = wait_s
        self._clock = clock
        self._keys = keys
        self._batches = 0
        self._subscribers = 0
        self._transport: Transport | None = None

    def start(self, run: RunStart) -> None:
        """Bind, wait for the subscribers asked for, and announce the run."""
        self._run = run
        self._transport = Transport(keys=self._keys)
        try:
            self._link = self._transport.link("xpub", self.address, bind=True, hwm=HIGH_WATER)
        except PipelineError:
            self.close()
            raise
        self.address = self._link.address
        self._wait(self._transport)
        self._link.send(encode_start(run))

    def batch(self, batch: Batch) -> None:
        """Publish `batch`."""
        self._send(encode_batch(self._run.run_id, batch))
        self._batches += 1
        if self._batches % self._every == 0:
            self._link.send(encode_start(self._run))

    def failures(self, failures: Sequence[Failure]) -> None:
        """Publish the items that failed."""
        for parts in encode_failed(self._run.run_id, failures):
            self._send(parts)

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None:
        """Publish the (seq, id) of items that were dropped."""
        self._send(encode(DroppedBody(run_id=self._run.run_id, items=tuple(items), reason=reason)))

    def event(self, event: Event) -> None:
        """Publish `event`."""
        self._send(encode(EventBody(run_id=self._run.run_id, event=event)))

    def stop(self, stop: RunStop) -> None:
        """Publish the end of the run."""
        self._send(encode(StopBody(stop=stop)))

    def close(self) -> None:
        """Close the socket; what is still on its way has LINGER_MS."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close(linger_ms=LINGER_MS)

    def _wait(self, transport: Transport) -> None:
        began = self._clock()
        while self._subscribers < self._wait_for:
            if self._clock() - began > self._wait_s:
                _log.warning(
                    "subscribers are missing: the run goes on without",
                    address=self.address,
                    waited_for=self._wait_for,
                    came=self._subscribers,
                )
                return
            transport.poll([self._link], POLL_MS)
            self._someone_came()

    def _send(self, parts: Sequence[Part]) -> None:
        if self._someone_came():
            self._link.send(encode_start(self._run))
        self._link.send(parts)

    def _someone_came(self) -> bool:
        """Take note of who came and who went since the last call; tell whether anybody came."""
        changes = list(self._link.subscriptions())
        self._subscribers += changes.count(True) - changes.count(False)
        return any(changes)
