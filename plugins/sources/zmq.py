"""``zmq:tcp://HOST:PORT``: a run that a peer sends in our own protocol, by PUSH or PUB.

Every message is hostile until it has been decoded and compared with the ``start`` of the run. One
that is not good is counted, and logged once per kind; where it says which items it was to bring,
they are Failures. Frames and patterns are taken, of exactly the run whose ``start`` came first, and
numbered anew in the order in which they come: who subscribes in mid-run waits for the next
``start`` (the sink ``zmq`` repeats it) and has the items from there on. The run ends with its
``stop``, or when nothing of it came for `idle_timeout_s`. Who may have missed the ``stop``, a
subscriber or one that goes on where another died, ends it at the ``start`` of another run too.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import structlog
from pydantic import Field

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import (
    BatchBody,
    DroppedBody,
    EventBody,
    FailedBody,
    StartBody,
    StopBody,
)
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MAX_DROPPED, Message, MessageError
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.links import Transport, check_bind
from phasewatch.plugins.sources.trust import MAX_ITEMS, announced, usable_start

POLL_MS = 100
WAITING_S = 3.0  # then a user is told what is waited for
HIGH_WATER = 16  # messages; 16 frames of 5.7 MB are 91 MB
INT64 = np.iinfo(np.int64)

_log = structlog.get_logger(__name__)


def open_source(
    target: str,
    *,
    socket: Literal["pull", "sub"] = "pull",
    bind: bool = False,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
    keys: str | None = None,
) -> "ZmqSource":
    """Take a run from the peer at `target`.

    Parameters
    ----------
    target
        ``tcp://HOST:PORT`` or ``ipc://PATH``.
    socket
        ``pull`` (every item comes once, the peer waits) or ``sub`` (a copy; the slow lose items).
    bind
        Bind instead of connecting; without `keys` loopback and ipc only.
    idle_timeout_s
        End the run when nothing came for so long, an error where no ``start`` did; None waits for
        ever, for the ``start`` too.
    keys
        Folder of keys (`phasewatch keys`): the link is encrypted, and only who is known gets in.
    """
    loaded = None if keys is None else Keys.load(Path(keys))
    if bind:
        check_bind(target, loaded)
    return ZmqSource(target, socket, bind, idle_timeout_s, keys=loaded)


class ZmqSource:
    """Source of the items of one run from a socket.

    Attributes
    ----------
    address
        Where it is bound or connected; once started, with the port that was free.
    refused
        Number of messages not taken, by kind; what was no message at all the link counts.
    last_error
        Why the last message was not taken.
    """

    replays = False

    def __init__(
        self,
        address: str,
        kind: Literal["pull", "sub"],
        bind: bool,
        idle_timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        keys: Keys | None = None,
    ) -> None:
        self.address = address
        self.refused: Counter[str] = Counter()
        self.last_error = ""
        self._kind = kind
        self._bind = bind
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self._keys = keys
        self._first = 0
        self._missed_stop = kind == "sub"  # it may have
        self._transport: Transport | None = None
        self._timed: bool | None = None
        self._now = self._last = 0.0

    def connect(self) -> None:
        """Open the socket, if it is not open; `start` does it too."""
        if self._transport is None:
            transport = Transport(keys=self._keys)
            try:
                self._link = transport.link(
                    self._kind, self.address, bind=self._bind, hwm=HIGH_WATER
                )
            except PipelineError:
                transport.close()
                raise
            self._transport, self.address = transport, self._link.address

    def start(self) -> RunStart:
        """Wait for the ``start`` of a run."""
        try:
            self.connect()
            began, said = self._clock(), False
            for message in self._messages():
                if not said and self._now - began > WAITING_S:
                    _log.info("waiting for the start of a run", address=self.address)
                    said = True
                if message is None:
                    continue
                self._last = self._now  # a run is going on, its start will be repeated
                try:
                    self._run = usable_start(message.run(), self.address)
                    return self._run
                except MessageError as error:
                    self._refuse("no start", str(error))
            refused = self._link.rejected + self.refused.total()
            raise PipelineError(
                f"zmq:{self.address}: no start of a run in {self._idle_timeout_s} s; "
                + (f"{refused} refused, last: {self.last_error}" if refused else "nothing came")
            )
        except BaseException:
            self.close()
            raise

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run`, of which `n` items have come, at what comes from now on."""
        self.connect()
        self._run, self._first, self._missed_stop = run, n, True

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield what comes, numbered in the order in which it came, until the run ends."""
        seq = self._first
        for message in self._messages():
            if message is None:
                yield None
                continue
            if self._ends(message):
                break
            if _run_of(message) == self._run.run_id:
                self._last = self._now
            items = self._take(message)
            for item in items:
                if isinstance(item, Batch):
                    yield replace(item, seq=np.arange(seq, seq + len(item), dtype=np.int64))
                    seq += len(item)
                else:
                    yield replace(item, seq=seq)
                    seq += 1
            if not items:
                yield None
        self.close()

    def close(self) -> None:
        """Close the socket and say what was refused."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()
            if self.refused or self._link.rejected:
                _log.warning(
                    "messages refused",
                    address=self.address,
                    rejected=self._link.rejected,
                    last_error=self.last_error,
                    **self.refused,
                )

    def _messages(self) -> Iterator[Message | None]:
        """Yield messages, None where there was none or none of ours; end when idle."""
        self._now = self._last = self._clock()
        while self._transport is not None:
            ready = self._transport.poll([self._link], POLL_MS)
            received = self._link.receive() if ready else None  # logs, counts what is no message
            self._now = self._clock()
            if received is not None:
                yield received[1]
            elif ready:
                self.last_error = self._link.last_error
            if self._idle_timeout_s is not None and self._now - self._last > self._idle_timeout_s:
                _log.warning("idle: the run is over", address=self.address)
                return
            if received is None:
                yield None

    def _ends(self, message: Message) -> bool:
        body, ours = message.body, self._run.run_id
        if isinstance(body, StopBody):
            return body.stop.run_id == ours
        if not (self._missed_stop and isinstance(body, StartBody)) or body.run.run_id == ours:
            return False
        try:
            other = usable_start(message.run(), self.address).run_id
        except MessageError:
            return False
        _log.warning("another run began: this one is over", address=self.address, other=other)
        return True

    def _take(self, message: Message) -> list[Batch | Failure]:
        """Return the items of `message`; their `seq` are still the peer's."""
        body = message.body
        if isinstance(body, StartBody) and body.run.run_id == self._run.run_id:
            return []  # repeated for those who came late
        if not isinstance(body, BatchBody | FailedBody | DroppedBody | EventBody):
            self._refuse(f"unexpected {body.type}", "")
            return []
        if body.run_id != self._run.run_id:
            self._refuse("another run", body.run_id)
            return []
        if isinstance(body, FailedBody):
            return self._failed([(i, f"{stage}: {error}") for _, i, stage, error in body.items])
        if isinstance(body, DroppedBody):
            return self._failed([(i, f"dropped: {body.reason}") for _, i in body.items])
        if isinstance(body, EventBody):
            return []
        try:
            batch = self._checked(message.batch())
            return [batch] if len(batch) else []
        except PipelineError as error:
            self._refuse("bad batch", str(error))
            return self._failed([(i, str(error)) for i in _ids(message)])

    def _failed(self, items: list[tuple[int, str]]) -> list[Batch | Failure]:
        if len(items) > MAX_DROPPED or any(not INT64.min <= i <= INT64.max for i, _ in items):
            self._refuse("bad failures", "too many items, or an id that is not int64")
            return []
        return [Failure(-1, i, "source", error) for i, error in items]

    def _checked(self, batch: Batch) -> Batch:
        timed = batch.t_acq is not None
        if self._timed not in (None, timed):
            raise MessageError("t_acq: some batches have it, some have not")
        batch = announced(batch, self._run)
        self._timed = timed
        return batch

    def _refuse(self, kind: str, text: str) -> None:
        self.refused[kind] += 1
        self.last_error = f"{kind}: {text}" if text else kind
        if self.refused[kind] == 1:
            _log.warning("message refused", address=self.address, kind=kind, text=text)


def _ids(message: Message) -> list[int]:
    """Return which items a batch that is not good was to bring, as far as it says so."""
    try:
        ids = message.columns().get("ids", np.empty(0, np.int64))
    except MessageError:
        return []
    return ids.tolist() if len(ids) <= MAX_ITEMS else []


def _run_of(message: Message) -> str | None:
    body = message.body
    if isinstance(body, StartBody):
        return body.run.run_id
    if isinstance(body, StopBody):
        return body.stop.run_id
    return getattr(body, "run_id", None)
