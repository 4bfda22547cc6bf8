"""What the supervisor knows of a run, for whoever looks at it."""

import time
from dataclasses import dataclass, field
from typing import Any

from phasewatch.pipeline.documents import Event
from phasewatch.pipeline.health import Book, Status, run_status

MAX_EVENTS = 1000  # kept


@dataclass(slots=True)
class View:
    """What the supervisor knows, for a progress line or a status table."""

    run_id: str
    control: str
    source: str = ""
    expected: int | None = None
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    book: Book = field(default_factory=lambda: Book(time.monotonic_ns()))
    items: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    n_events: int = 0
    stopping: str = ""
    written: bool = False


def status(view: View, now_ns: int) -> Status:
    """Return what ``phasewatch status`` shows."""
    return run_status(
        view.book,
        now_ns,
        run_id=view.run_id,
        source=view.source,
        expected=view.expected,
        classes=view.classes,
        stopping=view.stopping,
        events=view.events,
        n_events=view.n_events,
    )
