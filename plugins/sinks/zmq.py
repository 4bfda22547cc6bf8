"""The sink ``zmq``: publishes the documents of a run, in our own protocol, on a PUB socket.

A subscriber may come at any time: ``start`` is sent at the beginning and again after every so many
batches. What was sent before a subscriber came is lost to it, as is what it does not take in time.
No subscriber can hold up the run.
"""

from collections.abc import Sequence

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import (
    EventBody,
    Part,
    StopBody,
    encode,
    encode_batch,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.transport.links import Transport, check_bind

HIGH_WATER = 64  # messages kept for a slow subscriber; 64 batches of 16 patterns are 16 MB
LINGER_MS = 1000  # what is not taken by then after the end is dropped


def open_sink(*, address: str, every: int = 50) -> "Publisher":
    """Publish on `address` (loopback or ipc), with ``start`` again after `every` batches."""
    check_bind(address)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise PipelineError(f"[[sink]] zmq: every is {every!r}, not a number of batches")
    return Publisher(address, every)


class Publisher:
    """Sink that publishes one run.

    Attributes
    ----------
    address
        Where it is bound; once started, with the port that was free.
    """

    def __init__(self, address: str, every: int) -> None:
        self.address = address
        self._every = every
        self._batches = 0
        self._transport: Transport | None = None

    def start(self, run: RunStart) -> None:
        """Bind and announce the run."""
        self._run = run
        self._transport = Transport()
        try:
            self._link = self._transport.link("pub", self.address, bind=True, hwm=HIGH_WATER)
        except PipelineError:
            self.close()
            raise
        self.address = self._link.address
        self._send(encode_start(run))

    def batch(self, batch: Batch) -> None:
        """Publish `batch`."""
        self._send(encode_batch(self._run.run_id, batch))
        self._batches += 1
        if self._batches % self._every == 0:
            self._send(encode_start(self._run))

    def failures(self, failures: Sequence[Failure]) -> None:
        """Publish the items that failed."""
        self._send(encode_failed(self._run.run_id, failures))

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

    def _send(self, parts: Sequence[Part]) -> None:
        self._link.send(parts)
