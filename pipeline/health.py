"""From the health reports of the processes to what people see of a run: its status.

Each process reports now and then how many items it has handled since it started (`COUNTS`), what
it holds and what went wrong last. Rates come from successive counts and the monotonic clock that is
passed in; a process that was started anew begins again at 0. Nothing here reads a clock or a
socket.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from phasewatch.pipeline.documents import Document, Event, Loss, Zone
from phasewatch.pipeline.errors import PipelineError

COUNTS = ("received", "done", "classified", "written")  # the first that a process reports
WINDOW_NS = 5_000_000_000  # over which a rate is taken
MAX_REPORTS = 64  # 25 come in a window; a process cannot make us keep more
MAX_SHOWN = 20  # events
ERROR_LENGTH = 500


class ProcessStatus(Document):
    """How one process is; None is what it does not report.

    `heard_s` is the time since its last word, `done` how many items it has handled, `age_ms` the
    age of the oldest item it holds, or of the last one it saw; `batch` how many items it handles at
    once.
    """

    heard_s: float
    done: int | None = None
    rate_hz: float | None = None
    queued: int | None = None
    in_flight: int | None = None
    age_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    batch: float | None = None
    rejected: int = 0
    restarts: int = 0
    error: str = ""


class TrackStatus(Document):
    """Where the sample is: `phase` is one of `classes`, or ``unknown``."""

    classes: tuple[str, ...]
    phase: str
    posterior: float
    confidence: float | None = None
    zones: tuple[Zone, ...] = ()


class Status(Document):
    """How a run is: the answer to ``phasewatch status``, the heartbeat, what observers get.

    `stopping` says why the source is being stopped, if it is; `latency_ms` are the quantiles from
    received to tracked, p50, p99, ...; `events` are the last of `n_events`.
    """

    run_id: str
    source: str
    elapsed_s: float
    stopping: str
    frames: Loss
    latency_ms: dict[str, float]
    track: TrackStatus | None
    processes: dict[str, ProcessStatus]
    events: tuple[Event, ...]
    n_events: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a process said at `at_ns`."""

    at_ns: int
    data: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """Return the number it gave as `name`, if it gave one."""
        value = self.data.get(name)
        return value if isinstance(value, int | float) else None

    @property
    def count(self) -> int | None:
        """How many items it has handled."""
        counts = [n for n in (self.number(name) for name in COUNTS) if n is not None]
        return int(counts[0]) if counts else None


History = tuple[Report, ...]


def extend(history: History, report: Report) -> History:
    """Add `report` to the reports of a process; forget what is too old, or of its earlier life."""
    last = history[-1].count if history else None
    if last is not None and (report.count is None or report.count < last):
        return (report,)
    kept = [r for r in history if report.at_ns - r.at_ns <= WINDOW_NS]
    return (*kept[1 - MAX_REPORTS :], report)


def rate_hz(history: History, now_ns: int) -> float | None:
    """Return items per second over the window; None where that cannot be said."""
    if len(history) < 2 or now_ns - history[-1].at_ns > WINDOW_NS:
        return None
    first, last = history[0], history[-1]
    if first.count is None or last.count is None or last.at_ns <= first.at_ns:
        return None
    return round((last.count - first.count) / (last.at_ns - first.at_ns) * 1e9, 3)


@dataclass(slots=True)
class Book:
    """What the processes of a run have said, by role; kept by the supervisor."""

    began_ns: int
    heard_ns: dict[str, int] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def heard(self, role: str, now_ns: int) -> None:
        """Note that `role` has said something."""
        self.heard_ns[role] = now_ns

    def report(self, role: str, data: Mapping[str, Any], now_ns: int) -> None:
        """Take in a health report."""
        self.heard(role, now_ns)
        self.histories[role] = extend(self.histories.get(role, ()), Report(now_ns, data))
        if data.get("error"):
            self.failed(role, str(data["error"]))

    def failed(self, role: str, error: str) -> None:
        """Note the last error of `role`, or of its end."""
        line = " ".join(error.split())[:ERROR_LENGTH]
        self.errors[role] = "".join(c if c.isprintable() else "?" for c in line)

    def restarted(self, role: str) -> None:
        """Note that `role` was started anew."""
        self.restarts[role] = self.restarts.get(role, 0) + 1

    def last(self, role: str) -> Report:
        """Return the last report of `role`, an empty one before the first."""
        history = self.histories.get(role)
        return history[-1] if history else Report(self.began_ns, {})

    def process(self, role: str, now_ns: int) -> ProcessStatus:
        """Return how `role` is."""
        report, history = self.last(role), self.histories.get(role, ())
        age_ms = report.number("age_ms")
        heard = self.heard_ns.get(role, self.began_ns)
        return ProcessStatus(
            heard_s=round((now_ns - heard) / 1e9, 3),
            done=report.count,
            rate_hz=rate_hz(history, now_ns),
            queued=_whole(report.number("queued")),
            in_flight=_whole(report.number("in_flight")),
            # it has grown since it was told
            age_ms=None if age_ms is None else round(age_ms + (now_ns - report.at_ns) / 1e6, 3),
            p50_ms=report.number("p50_ms"),
            p99_ms=report.number("p99_ms"),
            batch=report.number("batch"),
            rejected=_whole(report.number("rejected")) or 0,
            restarts=self.restarts.get(role, 0),
            error=self.errors.get(role, ""),
        )


def run_status(
    book: Book,
    now_ns: int,
    *,
    run_id: str,
    source: str = "",
    expected: int | None = None,
    classes: Sequence[str] = (),
    stopping: str = "",
    events: Sequence[Event] = (),
    n_events: int = 0,
) -> Status:
    """Return the status of a run at `now_ns`, on the clock of `book`.

    Parameters
    ----------
    book
        What the processes have said.
    expected
        How many items the source announced; None where it did not.
    classes
        The phases, in order.
    events
        Those that are known, the last of `n_events`.
    """
    tracker, sink = book.last("tracker"), book.last("sink")
    return Status(
        run_id=run_id,
        source=source,
        elapsed_s=round((now_ns - book.began_ns) / 1e9, 3),
        stopping=stopping,
        frames=_frames(book.last("receiver"), tracker, expected),
        latency_ms={
            name: value
            for name in ("p50", "p90", "p99", "p999")
            if (value := sink.number(f"{name}_ms")) is not None
        },
        track=_track(tracker, tuple(classes)),
        processes={role: book.process(role, now_ns) for role in sorted(book.heard_ns)},
        events=tuple(events[-MAX_SHOWN:]),
        n_events=n_events,
    )


def parse_status(data: Mapping[str, Any], *, where: str) -> Status:
    """Return the status that came from `where`.

    Raises
    ------
    PipelineError
        It is not one of this version.
    """
    try:
        return Status.model_validate(data, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PipelineError(
            f"{where}: not a status of this version: {field}: {first['msg']}"
        ) from None


def _frames(receiver: Report, tracker: Report, expected: int | None) -> Loss:
    dropped = tracker.data.get("dropped") or {}
    return Loss(
        expected=expected,
        received=_whole(receiver.number("received")) or 0,
        missed=_whole(receiver.number("missed")) or 0,
        classified=_whole(tracker.number("classified")) or 0,
        dropped={str(reason): int(n) for reason, n in dropped.items()},
        failed=_whole(tracker.number("failed")) or 0,
    )


def _track(tracker: Report, classes: tuple[str, ...]) -> TrackStatus | None:
    phase = _whole(tracker.number("phase"))
    if phase is None:
        return None
    return TrackStatus(
        classes=classes,
        phase=classes[phase] if 0 <= phase < len(classes) else "unknown",
        posterior=tracker.number("posterior") or 0.0,
        confidence=tracker.number("confidence"),
        zones=tuple(Zone.model_validate(zone) for zone in tracker.data.get("zones", ())),
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
