"""``wire:FILE``: a recording of `phasewatch bench record` as a source.

Directly: our own protocol, decoded from the file. With ``via = "zmq"`` (or the scheme of another
source that listens at an address) the messages go through a real socket to that source, which then
decodes them as it does those of a facility.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from phasewatch.bench.load.record import feed, paced
from phasewatch.bench.load.wire_file import read_messages
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import BatchBody, DroppedBody, FailedBody, StartBody, StopBody
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Message, decode
from phasewatch.pipeline.plugin import Source
from phasewatch.pipeline.plugin import open_source as open_any
from phasewatch.plugins.raw_socket import RawSocket
from phasewatch.plugins.sources.trust import announced, usable_start

HIGH_WATER = 16  # messages under way
IDLE = 20  # times that a source says "nothing yet", each 0.1 s at most: a recording without an end


def open_source(
    target: str,
    *,
    via: str = "",
    options: dict[str, Any] | None = None,
    speed: Annotated[float, Field(ge=0)] = 0.0,
) -> "WireSource | SocketReplay":
    """Replay the recording `target`.

    Parameters
    ----------
    via
        The scheme of the source that is to get it through a socket; empty: our own protocol, from
        the file. It has to take what a PUSH socket sends.
    options
        The keys of that source, e.g. ``{type = "PULL", name = "..."}`` of ``karabo-bridge``.
    speed
        1: at the intervals at which the messages came; 0: as fast as they are taken.
    """
    path = Path(target)
    if not path.is_file():
        raise PipelineError(f"wire:{target}: there is no such file")
    return SocketReplay(path, via, options or {}, speed) if via else WireSource(path, speed)


class WireSource:
    """Source of the first run in a recording of our own protocol."""

    def __init__(self, path: Path, speed: float) -> None:
        self._path, self._stopped = path, Event()
        self._messages = paced(read_messages(path), speed, self._stopped)

    def start(self) -> RunStart:
        """Read up to the ``start`` of a run."""
        for message in self._decoded():
            if isinstance(message.body, StartBody):
                self._run = usable_start(message.run(), str(self._path))
                source = f"wire:{self._path} of {message.run().source}"
                return self._run.evolve(source=source[:4096])
        raise PipelineError(f"wire:{self._path}: holds no start of a run of ours")

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield the items of that run, numbered from 0."""
        seq = 0
        for message in self._decoded():
            for item in self._items(message):
                if isinstance(item, Batch):
                    yield replace(item, seq=np.arange(seq, seq + len(item), dtype=np.int64))
                    seq += len(item)
                else:
                    yield replace(item, seq=seq)
                    seq += 1
            body = message.body
            if isinstance(body, StopBody) and body.stop.run_id == self._run.run_id:
                return

    def close(self) -> None:
        """End a wait for the next message."""
        self._stopped.set()

    def _decoded(self) -> Iterator[Message]:
        for message in self._messages:
            try:
                yield decode(message.parts)
            except PipelineError as error:
                raise PipelineError(
                    f"wire:{self._path}: {error}; traffic of another protocol needs via"
                ) from None

    def _items(self, message: Message) -> list[Batch | Failure]:
        body = message.body
        if not isinstance(body, BatchBody | FailedBody | DroppedBody):
            return []
        if body.run_id != self._run.run_id:
            return []
        if isinstance(body, FailedBody):
            return [Failure(-1, i, "source", f"{stage}: {e}") for _, i, stage, e in body.items]
        if isinstance(body, DroppedBody):
            return [Failure(-1, i, "source", f"dropped: {body.reason}") for _, i in body.items]
        return [announced(message.batch(), self._run)]


class SocketReplay:
    """The source `via`, fed from a recording through a socket of this host."""

    def __init__(self, path: Path, via: str, options: dict[str, Any], speed: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="phasewatch-wire-")
        address = f"ipc://{self._folder.name}/wire"
        self._stopped = Event()
        try:
            self._inner: Source = open_any(f"{via}:{address}", **options)
        except PipelineError:
            self._folder.cleanup()
            raise
        self._socket = RawSocket("push", address, bind=True, hwm=HIGH_WATER)
        self._thread = Thread(target=self._feed, args=(path, speed), name="wire", daemon=True)
        self._error: Exception | None = None

    def start(self) -> RunStart:
        """Begin to send; return what the other source makes of it."""
        self._thread.start()
        return self._inner.start()

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield what the other source makes of it, until it ends or has had all for a while."""
        idle = 0
        for item in self._inner:
            if self._error is not None:
                raise self._error
            idle = 0 if item is not None or self._thread.is_alive() else idle + 1
            if idle > IDLE:
                return
            yield item

    def close(self) -> None:
        """Stop sending; close the sockets."""
        self._stopped.set()
        self._inner.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
        self._folder.cleanup()

    def _feed(self, path: Path, speed: float) -> None:
        try:
            feed(path, self._socket, speed=speed, stopped=self._stopped)
        except Exception as error:  # the reader of this source raises it
            self._error = error
