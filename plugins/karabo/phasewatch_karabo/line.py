"""The life of the runs behind the node: what waits, what is sent, how one ends and the next begins.

Handlers of Karabo are cancelled after 5 s and run on the event loop, so `admit` only puts frames
into a queue; one task (`pump`) sends them, and all that may wait is done in threads. A frame that
finds no room is dropped and counted, here and in the loss table of the run. The end of the input,
another configuration and the user's stop are entries of that queue: every frame before them is in
the run that ends, every one after in the next.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Status
from phasewatch.pipeline.messages import Message, Part
from phasewatch.pipeline.transport.keys import Keys
from phasewatch.pipeline.transport.request import NoAnswerError
from phasewatch_karabo import chain
from phasewatch_karabo.frames import Stream, WrongFrameError

WAITING, MOST_WAITING = 16, 64  # frames: then the handler waits; then they are dropped
PATIENCE_S = 4.0  # of the handler, which is cancelled after 5 s
TURN_S = 0.005  # between two looks whether there is room
LOOK_S, ANSWER_S, BUSY_S = 0.25, 1.0, 3.0
BEGIN_S, END_S, TRIAL_S = 120.0, 60.0, 120.0


class Mark(Enum):
    """What ends a run: the end of the input, another configuration, the user."""

    END, NEXT, STOP = auto(), auto(), auto()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A frame that waits, or (no array) one that failed or was dropped, and why."""

    id: int
    t_acq: int
    array: NDArray[Any] | None
    error: str = ""
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where the chain is; `configuration` is empty where it runs already."""

    control: str
    frames: str
    results: str
    keys: str
    executable: str
    configuration: str


@dataclass(slots=True)
class Counts:
    """Frames: sent to the chain, dropped here, refused here."""

    forwarded: int = 0
    dropped: int = 0
    refused: int = 0


@dataclass(slots=True)
class Line:
    """The way from the node to the chain.

    Attributes
    ----------
    refused
        Is told, in one line, why a frame was refused.
    turning
        Is told whether a run is changing into the next.
    run_id
        The run of the chain that frames are for.
    told_end
        Whether the end of the last run has come back; set by who takes the results.
    """

    places: Places
    refused: Callable[[str], None]
    turning: Callable[[bool], None]
    source: str = ""
    run_id: str = ""
    told_end: bool = False
    counts: Counts = field(default_factory=Counts)
    _keys: Keys | None = None
    _queue: asyncio.Queue[Frame | Mark] = field(default_factory=asyncio.Queue)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _feed: chain.Feed | None = None
    _listener: chain.Listener | None = None
    _program: chain.Program | None = None
    _stream: Stream | None = None

    @property
    def sent(self) -> int:
        """How many frames of the present run were sent, failed ones included."""
        return 0 if self._stream is None else self._stream.n

    @property
    def rejected(self) -> int:
        """How many messages that came from the chain were not of our protocol."""
        return 0 if self._listener is None else self._listener.rejected

    @property
    def pid(self) -> int | None:
        """The process id of the chain, where it is ours."""
        return None if self._program is None else self._program.pid

    async def open(self, take: Callable[[Message], None]) -> Status:
        """Start the chain, or find it; `take` gets what it publishes, in a thread."""
        self._keys = chain.keys_in(self.places.keys)
        if self.places.configuration:
            await self._nobody_there()
            await in_thread(self._spawn)
        status = await self._present(other_than="")
        self._feed = chain.Feed(self.places.frames, self._keys)
        self._listener = chain.Listener(self.places.results, self._keys, take)
        return status

    async def close(self) -> None:
        """Let go of sockets, and of the chain where it is ours."""
        listener, self._listener = self._listener, None
        feed, self._feed = self._feed, None
        program, self._program = self._program, None
        if listener is not None:
            await in_thread(listener.close)
        if feed is not None:
            feed.close()
        if program is not None:
            await in_thread(program.end)

    async def admit(self, frame: Frame) -> None:
        """Take a frame; wait for room at most as long as a handler may, then drop it."""
        if self._queue.qsize() >= WAITING:
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), PATIENCE_S)
        if self._queue.qsize() < MOST_WAITING:
            self._queue.put_nowait(frame)
            return
        self.counts.dropped += 1
        if self._queue.qsize() < 2 * MOST_WAITING:
            why = "the chain takes none"
            self._queue.put_nowait(Frame(frame.id, frame.t_acq, None, why, dropped=True))

    def end(self, mark: Mark) -> None:
        """Let the run end after the frames that wait."""
        self._queue.put_nowait(mark)

    async def pump(self) -> None:
        """Send what waits, in order, until the user stops it."""
        while True:
            item = await self._queue.get()
            if self._queue.qsize() < WAITING:
                self._room.set()
            if isinstance(item, Frame):
                await self._forward(item)
            elif await self._turn(item):
                return

    async def status(self) -> Status:
        """Ask how the chain is; raises NoAnswerError, or what says how our process ended."""
        self._check_program(ended_well=False)
        return await self._status()

    async def peek(self) -> Status:
        """Ask how the chain is while one run changes into the next: our process may end then."""
        return await self._status()

    async def ask(self, what: str, timeout_s: float, **data: Any) -> dict[str, Any]:
        """Ask the run at the control socket."""
        address, keys, run_id = self.places.control, self._keys, self.run_id
        return await in_thread(
            lambda: chain.ask(address, keys, what, timeout_s, run_id=run_id, **data)
        )

    async def load(self, files: dict[str, str]) -> None:
        """Try `files`; where they are good the run ends and the next one begins with them."""
        await self.ask("load", TRIAL_S, at_end=True, **files)
        self.end(Mark.NEXT)

    async def _forward(self, frame: Frame) -> None:
        if self._stream is None:
            self._stream = Stream(uuid.uuid4().hex, f"karabo:{self.source}")
        if frame.dropped:
            messages = self._stream.dropped(frame.id, frame.error)
        elif frame.array is None:
            messages = self._refuse(self._stream, frame.id, frame.error)
        else:
            try:
                messages = self._stream.frame(frame.array, frame.id, frame.t_acq)
                self.counts.forwarded += 1
            except WrongFrameError as error:
                messages = self._refuse(self._stream, frame.id, str(error))
        for parts in messages:
            await self._send(parts)

    def _refuse(self, stream: Stream, id_: int, error: str) -> list[list[Part]]:
        self.counts.refused += 1
        self.refused(error)
        return stream.failed(id_, error)

    async def _send(self, parts: list[Part]) -> None:
        while self._feed is not None and not self._feed.offer(parts):
            await asyncio.sleep(TURN_S)

    async def _turn(self, mark: Mark) -> bool:
        """End the run in order, go on with the next; tell whether there is none."""
        stream, self._stream, old = self._stream, None, self.run_id
        self.told_end = False
        if stream is not None and stream.begun:
            self.turning(True)
            await self._send(stream.end(mark.name.lower()))
            if mark is Mark.STOP:
                await self._until_over(old)
            else:
                await self._present(other_than=old)
        if mark is not Mark.STOP:
            self.turning(False)
        return mark is Mark.STOP

    async def _nobody_there(self) -> None:
        """Refuse to start a chain beside another, as a device server that was killed leaves one."""
        try:
            run_id = (await self._status(BUSY_S)).run_id
        except NoAnswerError:
            return
        control = self.places.control
        raise PipelineError(
            f"control {control}: run {run_id} answers there: end it (phasewatch stop {control}), "
            "or attach to it without configuration"
        )

    def _spawn(self) -> None:
        if self._program is not None:
            self._program.end()
        self._program = chain.Program(self.places.executable, self.places.configuration)

    def _check_program(self, *, ended_well: bool) -> None:
        code = None if self._program is None else self._program.code
        if self._program is not None and code is not None and not (ended_well and code == 0):
            words = self._program.last_words()
            raise PipelineError(f"the chain ended (exit code {code}): {words}")

    async def _present(self, *, other_than: str) -> Status:
        """Wait until a run answers that is not `other_than`; start the chain again if it is ours.

        Raises
        ------
        PipelineError
            There is none in time, or our process ended in error.
        """
        patience_s = BEGIN_S if self._program or other_than else 2 * ANSWER_S
        until = time.monotonic() + patience_s
        while True:
            self._check_program(ended_well=bool(other_than))
            if self._program is not None and self._program.code == 0:
                await in_thread(self._spawn)
            error: PipelineError = PipelineError(f"run {other_than} does not end")
            try:
                status = await self._status()
                if status.run_id != other_than:
                    self.run_id = status.run_id
                    return status
            except NoAnswerError as none:
                error = none
            if time.monotonic() > until:
                raise error
            await asyncio.sleep(LOOK_S)

    async def _until_over(self, run_id: str) -> None:
        """Wait until the end of the run has come back, or the run is not there any more."""
        until = time.monotonic() + END_S
        while not self.told_end and time.monotonic() < until:
            try:
                self._check_program(ended_well=True)
                if (await self._status()).run_id != run_id:
                    return
            except PipelineError:
                return
            await asyncio.sleep(LOOK_S)

    async def _status(self, patience_s: float = ANSWER_S) -> Status:
        return await in_thread(chain.status, self.places.control, self._keys, patience_s)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function` returns, in a thread that may wait."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)
