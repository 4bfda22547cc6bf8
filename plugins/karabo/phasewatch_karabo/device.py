"""The device ``PhasewatchNode``: frames in from another device, results out, the chain between."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
from karabo.middlelayer import (
    AlarmCondition,
    Hash,
    InputChannel,
    KaraboError,
    Slot,
    State,
    Timestamp,
    background,
    dtype_from_number,
    slot,
)

from phasewatch.pipeline.documents import RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Status
from phasewatch.pipeline.messages import Message
from phasewatch.pipeline.transport.request import NoAnswerError
from phasewatch_karabo import __version__
from phasewatch_karabo.alarms import Flow, Limits, lost, warnings, zone_text
from phasewatch_karabo.frames import WrongFrameError, frame_in
from phasewatch_karabo.line import END_S, Frame, Line, Mark, Places
from phasewatch_karabo.properties import NodeProperties
from phasewatch_karabo.results import Result, Results
from phasewatch_karabo.scene import scene

LOOK_S, RESET_S = 0.5, 2.0
SILENT = 3  # unanswered looks, then it is an error
TAKING = (State.PROCESSING, State.CHANGING)


class PhasewatchNode(NodeProperties):
    """Feeds a phasewatch chain from an output channel and publishes what it says."""

    __version__ = __version__

    def __init__(self, configuration: Any) -> None:
        super().__init__(configuration)
        self._line: Line | None = None
        self._tasks: list[Any] = []
        self._results = Results()
        self._last: Status | None = None
        self._seen = (time.monotonic(), 0, 0, 0)  # when; frames in, results, lost here by then
        self._n_in = self._n_results = self._dropped_in_error = self._train = 0
        self._result_at = 0.0

    async def onInitialization(self) -> None:
        """Wait to be told to start."""
        self.state = State.PASSIVE

    async def onDestruction(self) -> None:
        """Let go of sockets and of the chain, if it is ours."""
        await self._close()

    @InputChannel(raw=True, displayedName="Input")
    async def input(self, data: Hash, meta: Any) -> None:
        """Frames of a detector."""
        if self.state not in (*TAKING, State.ERROR):
            return
        self._n_in += 1
        if self.state == State.ERROR or self._line is None:
            self._dropped_in_error += 1
            self._count()
            return
        self._line.source = str(meta.source.value)
        await self._line.admit(self._frame(data, meta.timestamp.timestamp))

    @input.endOfStream
    async def input(self, name: str) -> None:
        """Let the run end; the next frame begins another one."""
        if self.state in TAKING and self._line is not None:
            self._line.end(Mark.END)

    @Slot(displayedName="Start", allowedStates=[State.PASSIVE, State.ERROR])
    async def start(self) -> None:
        """Start the chain, or attach to it, and forward frames."""
        self.state, self.status = State.STARTING, "starting"
        background(self._guarded(self._begin()))

    @Slot(displayedName="Stop", allowedStates=[State.PROCESSING, State.ERROR])
    async def stop(self) -> None:
        """End the run in order: what was received still comes through."""
        in_order = self.state == State.PROCESSING
        self.state = State.STOPPING
        background(self._guarded(self._finish(in_order=in_order)))

    @Slot(displayedName="Reset Tracker", allowedStates=[State.PROCESSING])
    async def resetTracker(self) -> None:
        """Follow the transition anew, from the next frame on."""
        try:
            await self._line.ask("reset", RESET_S)
        except PipelineError as error:
            raise KaraboError(str(error)) from None
        self.status = "the tracker begins anew with the next frame"

    @Slot(displayedName="Load Model", allowedStates=[State.PROCESSING])
    async def loadModel(self) -> None:
        """Try `model`; where it is good end the run in order and go on with it."""
        self._load({"model": self.model.value})

    @Slot(displayedName="Load Calibration", allowedStates=[State.PROCESSING])
    async def loadCalibration(self) -> None:
        """Try `poni` and `mask`; where they are good end the run in order and go on with them."""
        self._load({"poni": self.poni.value, "mask": self.mask.value})

    @slot
    def requestScene(self, params: Hash) -> Hash:
        """Return the default scene."""
        name = params.get("name", default="scene")
        payload = Hash("success", name == "scene", "name", name)
        if name == "scene":
            payload["data"] = scene(self.deviceId)
        return Hash("type", "deviceScene", "origin", self.deviceId, "payload", payload)

    def _frame(self, data: Hash, stamp: Timestamp) -> Frame:
        t_acq = int(stamp.time_sec) * 10**9 + int(stamp.time_frac) // 10**9
        id_ = int(stamp.tid) or self._n_in - 1  # no time server: count
        try:
            return Frame(id_, t_acq, frame_in(data, self.frameKey.value, dtype_from_number))
        except WrongFrameError as error:
            return Frame(id_, t_acq, None, str(error))

    async def _begin(self) -> None:
        await self._close()
        places = ("control", "frames", "results", "keys", "executable", "configuration")
        self._results, self._result_at = Results(), 0.0
        self._line = line = Line(
            Places(**{key: getattr(self, key).value for key in places}),
            self._refused,
            self._turning,
        )
        loop = asyncio.get_running_loop()

        def take(message: Message) -> None:  # waits: we do not run away from a slow client of ours
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(self._deliver(message), loop).result()

        self._show(await line.open(take))
        self.state, self.status = State.PROCESSING, "ready for frames"
        self._tasks = [background(self._guarded(line.pump())), background(self._watch(line))]

    async def _finish(self, *, in_order: bool) -> None:
        if self._tasks and self._line is not None and in_order:
            self._line.end(Mark.STOP)
            await asyncio.wait([self._tasks[0]], timeout=END_S)
        await self._close()
        self.state, self.status = State.PASSIVE, "stopped"
        self.globalAlarmCondition = AlarmCondition.NONE

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        if self._line is not None:
            await self._line.close()

    def _load(self, files: dict[str, str]) -> None:
        named = {key: path for key, path in files.items() if path}
        if not named:
            raise KaraboError(f"set {' or '.join(files)} first")
        self.state, self.status = State.CHANGING, f"trying {', '.join(named.values())}"
        background(self._guarded(self._try(named)))

    async def _try(self, files: dict[str, str]) -> None:
        try:
            await self._line.load(files)
        except PipelineError as error:  # the run goes on as it was
            self._turning(False)
            self.status = f"not loaded: {error}"
        else:
            self.status = "loaded: the next run begins with it"

    async def _deliver(self, message: Message) -> None:
        """Publish what came from the chain."""
        for item in self._results.take(message):
            if isinstance(item, RunStart):
                self.classes = list(item.classes)
                self.modelDigest = item.digests.get("model", "")
                self.calibrationDigest = item.digests.get("calibration", "")
            elif isinstance(item, RunStop):
                await self.output.writeEndOfStream()
                if self._line is not None:
                    self._line.told_end = True
            else:
                await self._publish(item)

    async def _publish(self, result: Result) -> None:
        data = self.output.schema.data
        data.seq, data.trainId = result.seq, max(result.id, 0)
        data.label, data.phase, data.novelty = result.label, result.phase, result.novelty
        data.probability, data.pattern = result.probability, result.pattern
        self._n_results, self._result_at = self._n_results + 1, time.monotonic()
        await self.output.writeData(timestamp=_stamp(result))
        self._train = max(result.id, 0)

    async def _watch(self, line: Line) -> None:
        """Show how the chain is; an error where it does not answer, until it does again."""
        silent = 0
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._show(await (line.status() if self.state != State.CHANGING else line.peek()))
                silent = 0
                if self.state == State.ERROR:
                    self.state, self.status = State.PROCESSING, "the chain answers again"
            except NoAnswerError as error:
                silent += 1
                if silent >= SILENT and self.state == State.PROCESSING:
                    self._fail(str(error))
            except PipelineError as error:
                self._fail(str(error))

    def _show(self, status: Status) -> None:
        now, track = time.monotonic(), status.track
        before, n_in, n_out, n_lost = self._seen
        self._count()
        lost_here = int(self.framesDropped.value + self.framesRefused.value)
        self._seen = now, self._n_in, self._n_results, lost_here
        self.inputRate = (self._n_in - n_in) / (now - before)
        self.resultRate = (self._n_results - n_out) / (now - before)
        self.runId = status.run_id
        self.received, self.classified = status.frames.received, status.frames.classified
        self.framesLost = lost(status)
        self.latency = status.latency_ms.get("p50", 0.0)
        self.latencyP99 = status.latency_ms.get("p99", 0.0)
        self.phase = "" if track is None else track.phase
        self.posterior = 0.0 if track is None else track.posterior
        self.confidence = 0.0 if track is None else track.confidence or 0.0
        self.zone = zone_text(status)
        if status.events:
            event = status.events[-1]
            self.lastEvent = f"{event.kind} at {event.seq} (train {event.id})"
        self.dataAge = now - self._result_at if self._result_at else 0.0
        waiting = self._line is not None and self._line.sent > status.frames.classified
        found = warnings(
            status,
            self._last,
            Flow(lost_here - n_lost, float(self.dataAge.value), waiting),
            Limits(self.maxLatency.value, self.maxAge.value, self.minConfidence.value),
        )
        self._last = status
        self.globalAlarmCondition = AlarmCondition.WARN if found else AlarmCondition.NONE
        if found and self.state == State.PROCESSING:
            self.status = "; ".join(found)

    def _count(self) -> None:
        """Show what was counted; not at each frame, which cost it 1.8 ms of CPU."""
        self.framesIn, self.trainId = self._n_in, self._train
        if self._line is not None:
            counts = self._line.counts
            self.resultsMissed = self._results.missed
            self.messagesRefused = self._results.refused + self._line.rejected
            self.framesForwarded = counts.forwarded
            self.framesRefused = counts.refused
            self.framesDropped = counts.dropped + self._dropped_in_error

    def _refused(self, why: str) -> None:
        self.lastRefused = why
        self._count()

    def _turning(self, on: bool) -> None:
        if self.state in TAKING:
            self.state = State.CHANGING if on else State.PROCESSING
            if not on:
                self.status = "ready for frames"

    def _fail(self, error: str) -> None:
        if self.state not in (State.STOPPING, State.PASSIVE):
            self.state = State.ERROR
            self.globalAlarmCondition = AlarmCondition.ALARM
        self.status = error

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (PipelineError, OSError) as error:
            self._fail(str(error))


def _stamp(result: Result) -> Timestamp | None:
    """Return when the frame was taken; None, which is now, where nobody said."""
    if result.t_acq is None:
        return None
    seconds, ns = divmod(result.t_acq, 10**9)
    attributes = {"sec": seconds, "frac": ns * 10**9, "tid": np.uint64(max(result.id, 0))}
    return Timestamp.fromHashAttributes(attributes)
