"""What sources of detector streams have in common: the frames of a run, in others' protocols.

A protocol is two things. A `Feed` brings its messages, from a socket or a broker's client. A
`Decoder` says what is in one, and does no more: it touches no socket and no clock. `Stream` does
the rest for all of them: it waits for a run, compares each frame with what was announced, numbers
it, lets it be written straight into memory that the receiver lends, and ends the run.

A message that is none of the protocol is counted and logged once per kind (`MessageError`); an item
that is known by its number but cannot be had is a `Failure`; what comes next is taken.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.found import Began, Decoder, Ended, Feed, Found, Frame, Lost
from phasewatch.plugins.sources.frames import Allocate, own_memory, read_frames

__all__ = ["Began", "Decoder", "Ended", "Feed", "Found", "Frame", "Lost", "Stream"]

POLL_MS = 100
WAITING_S = 3.0  # then a user is told what is waited for
LONGEST = 500  # characters of an error, which may quote the peer

_log = structlog.get_logger(__name__)


class Stream:
    """Source of the frames of one run from `feed`, as `decode` understands it.

    `scheme` is that of the source's URI. The run ends when the protocol says so, when another
    begins, or when nothing of it came for `idle_timeout_s`. A frame of a run whose start was not
    seen is refused; with `join`, which says how, it begins one.

    Attributes
    ----------
    refused
        Number of messages not taken, by kind.
    last_error
        Why the last one was not.
    """

    replays = False

    def __init__(
        self,
        scheme: str,
        feed: Feed,
        decode: Decoder,
        *,
        idle_timeout_s: float | None = None,
        join: Callable[[Frame], Began] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.last_error = ""
        self._scheme, self._feed, self._decode = scheme, feed, decode
        self._idle_timeout_s, self._join = idle_timeout_s, join
        self._clock = clock
        self._first = 0
        self._allocate: Allocate = own_memory
        self._open = False
        self._heard = 0.0
        self._timed: bool | None = None  # of the first frame
        self._found: Iterator[Found | None] = self._all_found()

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._feed.address

    def connect(self) -> None:
        """Open the feed, if it is not open; `start` does it too."""
        if not self._open:
            self._feed.open()
            self._open = True

    def start(self) -> RunStart:
        """Wait for a run."""
        try:
            self.connect()
            began, said = self._clock(), False
            for found in self._found:
                if isinstance(found, Frame) and self._join is not None:
                    _log.warning("joined a run whose start was not seen", address=self.address)
                    self._found, found = chain([found], self._found), self._join(found)
                if isinstance(found, Began):
                    try:
                        return self._begin(found, f"{self._scheme}-{uuid.uuid4().hex[:12]}")
                    except ValidationError as error:
                        self._refuse("no usable start", str(error))
                elif found is not None:
                    unseen = "an item of a run whose start was not seen: the next is waited for"
                    text = found.error if isinstance(found, Lost) else unseen
                    self._refuse("before a start", text)
                elif not said and self._clock() - began > WAITING_S:
                    _log.info("waiting for a run", address=self.address, last=self.last_error)
                    said = True
            raise PipelineError(
                f"{self._scheme}:{self.address}: no run in {self._idle_timeout_s} s; {self._why()}"
            )
        except BaseException:
            self.close()
            raise

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run`, of which `n` items have come, at what comes from now on."""
        if (go_on := getattr(self._feed, "go_on", None)) is not None:
            go_on(run, n)
        self.connect()
        self._run, self._first = run, n
        told: Callable[[RunStart], None] | None = getattr(self._decode, "resume", None)
        if told is not None:
            told(run)

    def lend(self, allocate: Allocate) -> None:
        """Have frames written into memory that `allocate` gives."""
        self._allocate = allocate

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield what comes, numbered in the order in which it came, until the run ends."""
        seq, together = self._first, list[Frame]()
        self._heard = self._clock()  # the other processes may have taken long to start
        for found in self._found:
            if isinstance(found, Frame) and self._ours(found.series):
                together.append(found)
                continue
            # What one message brought ends with None, so frames never wait for the next.
            for item in self._read(together, seq):
                yield item
                seq += len(item) if isinstance(item, Batch) else 1
            if together:
                self._heard = self._clock()  # while we were at work, it was not silent
            together = []
            if isinstance(found, Lost) and self._ours(found.series):
                yield Failure(seq, found.id, "source", found.error)
                seq += 1
            elif self._ends(found):
                break
            yield None
        else:
            if self._open:
                _log.warning("idle: the run is over", address=self.address)
        self.close()

    def close(self) -> None:
        """Close the feed and say what was refused."""
        if self._open:
            self._open = False
            self._feed.close()
            if self.refused:
                _log.warning(
                    "messages refused",
                    address=self.address,
                    last_error=self.last_error,
                    **self.refused,
                )

    def _all_found(self) -> Iterator[Found | None]:
        """Yield what is in each message, and None after it, or where none came; end when idle."""
        self._heard = self._clock()
        while self._open:
            message = self._feed.receive(POLL_MS)
            if message is not None:
                found = None
                try:
                    for found in self._decode(message):
                        yield found
                except (MessageError, ValidationError) as error:
                    self._refuse("not understood", str(error))
                except PipelineError:
                    yield None  # what came before it is taken
                    raise
                else:
                    if found is None and hasattr(self._decode, "rest"):
                        self._heard = self._clock()  # it may be held back: nobody was silent
            yield None
            idle = self._clock() - self._heard
            if self._idle_timeout_s is not None and idle > self._idle_timeout_s:
                rest: Callable[[], Iterable[Found]] | None = getattr(self._decode, "rest", None)
                yield from () if rest is None else (*rest(), None)
                return

    def _why(self) -> str:
        """Say why there is no run."""
        refused = self.refused.total()
        came = f"{refused} refused, last: {self.last_error}" if refused else "nothing came"
        state = getattr(self._feed, "state", "")
        return f"{came} ({state})" if state else came

    def _begin(self, began: Began, run_id: str) -> RunStart:
        self._heard = self._clock()
        settings = {"series": began.series, "timed": began.timed}
        self._run = RunStart(
            run_id=run_id,
            source=f"{self._scheme}:{self.address}"[:4096],
            items={"frame": began.frame},
            **{**began.facts, "settings": {**began.settings, **settings}},
        )
        return self._run

    def _ours(self, series: str) -> bool:
        """Tell whether an item of `series` is of the run; one that is not is refused."""
        own = self._run.settings.get("series", "")
        if series and own and series != own:
            self._refuse("another series", f"an item of series {series}, this run is {own}")
            return False
        self._heard = self._clock()
        return True

    def _ends(self, found: Found | None) -> bool:
        own = self._run.settings.get("series", "")
        if isinstance(found, Ended):
            return not (found.series and own and found.series != own)
        if not isinstance(found, Began) or found.series == own:
            return False
        _log.warning("another run began: this one is over", address=self.address)
        return True

    def _read(self, frames: list[Frame], seq: int) -> Iterator[Batch | Failure]:
        """Yield `frames`, the first of which is `seq`, written into memory that is lent."""
        if not frames:
            return
        spec, timed = self._run.items["frame"], self._run.settings.get("timed", False)
        if timed is None:
            timed = self._timed = (
                frames[0].t_acq is not None if self._timed is None else self._timed
            )
        times = np.array([-1 if f.t_acq is None else f.t_acq for f in frames], np.int64)

        def write(first: int, out: NDArray[Any]) -> None:
            for frame, into in zip(frames[first:], out, strict=False):
                if frame.frame != spec:
                    raise PipelineError(f"frame: {_said(frame.frame)} came, not {_said(spec)}")
                if timed and frame.t_acq is None:
                    raise PipelineError("frame: it has no time, earlier ones had")
                frame.write(into)

        ids = np.array([frame.id for frame in frames], np.int64)
        for item in read_frames(range(len(frames)), ids, spec, write, allocate=self._allocate):
            if isinstance(item, Failure):
                yield replace(item, seq=seq + item.seq)
            else:
                t_acq = times[item.seq] if timed else None
                yield replace(item, seq=seq + item.seq, t_acq=t_acq)

    def _refuse(self, kind: str, text: str) -> None:
        text = " ".join(text.split())[:LONGEST]
        self.refused[kind] += 1
        self.last_error = f"{kind}: {text}"
        if self.refused[kind] == 1:
            _log.warning("message refused", address=self.address, kind=kind, text=text)


def _said(spec: ItemSpec) -> str:
    return f"{np.dtype(spec.dtype)} {spec.shape}"
