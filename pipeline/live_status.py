"""The status of a run as a table that people read, once or live."""

from collections.abc import Callable, Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phasewatch.pipeline.health import ProcessStatus, Status

SILENT_S = 2.0  # a process that was not heard for so long is marked: it reports five times a second
COLUMNS = ("items", "rate/s", "queue", "held", "age", "p50", "p99", "batch", "restarts")
CHAIN = ("receiver", "reducer", "classifier", "accelerator", "tracker", "sink")


def show(statuses: Iterable[Status], console: Console) -> None:
    """Show each of `statuses` in place of the one before."""
    with Live(console=console, auto_refresh=False) as live:
        for status in statuses:
            live.update(render(status), refresh=True)


def follow(pause: Callable[[], None], ask: Callable[[], Status | None]) -> Iterator[Status]:
    """Yield what `ask` answers, after a `pause` each, until it answers None."""
    pause()
    while (status := ask()) is not None:
        yield status
        pause()


def render(status: Status) -> Group:
    """Return what a terminal shows: the run, its processes, its last events."""
    above = [Text(text, overflow="fold") for text in headlines(status)]
    below = [Text(text, overflow="fold", style="yellow") for text in troubles(status)]
    events = [
        Text(f"{e.kind} at {e.seq} (id {e.id}), posterior {e.posterior:.3f}")
        for e in status.events[-5:]
    ]
    return Group(*above, table(status), *below, *events)


def headlines(status: Status) -> list[str]:
    """Return the lines above the table: source, loss, latency, phase."""
    frames, track = status.frames, status.track
    if not status.source:
        return [f"run {status.run_id}  starting  {_seconds(status.elapsed_s)}"]
    state = f"stopping: {status.stopping}" if status.stopping else "running"
    of = "" if frames.expected is None else f"/{frames.expected}"
    dropped = ", ".join(f"{n} ({reason})" for reason, n in frames.dropped.items() if n)
    lines = [
        f"run {status.run_id}  {state}  {_seconds(status.elapsed_s)}",
        f"source {status.source}",
        f"received {frames.received}{of}  missed {frames.missed}  done {frames.classified}  "
        f"dropped {dropped or 0}  failed {frames.failed}"
        + "".join(f"  {name} {_ms(ms)}" for name, ms in status.latency_ms.items()),
    ]
    if track is not None:
        sure = "-" if track.confidence is None else f"{track.confidence:.1%}"
        zones = ", ".join(f"{z.after + 1}-{z.before - 1}" for z in track.zones if z.passed and z.n)
        lines.append(
            f"phase {track.phase} {track.posterior:.2f}  confidence {sure}  zones {zones or '-'}"
        )
    return lines


def table(status: Status) -> Table:
    """Return a row for each process, in the order of the chain."""
    built = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    built.add_column("process", no_wrap=True)
    for name in COLUMNS:
        built.add_column(name, justify="right")
    for role in sorted(status.processes, key=_place):
        process = status.processes[role]
        style = "red" if process.heard_s > SILENT_S else "yellow" if process.error else ""
        built.add_row(role, *cells(process), style=style)
    return built


def cells(process: ProcessStatus) -> list[str]:
    """Return the cells of a row, in the order of `COLUMNS`."""
    return [
        _count(process.done),
        _rate(process.rate_hz),
        _count(process.queued),
        _count(process.in_flight),
        _ms(process.age_ms),
        _ms(process.p50_ms),
        _ms(process.p99_ms),
        "" if process.batch is None else f"{process.batch:.3g}",
        str(process.restarts or ""),
    ]


def troubles(status: Status) -> list[str]:
    """Return a line for each process that is silent, refuses messages or had an error."""
    lines = []
    for role in sorted(status.processes, key=_place):
        process, said = status.processes[role], []
        if process.heard_s > SILENT_S:
            said.append(f"silent for {_seconds(process.heard_s)}")
        if process.rejected:
            said.append(f"{process.rejected} messages refused")
        if process.error:
            said.append(f"last error: {process.error}")
        if said:
            lines.append(f"{role}: {', '.join(said)}")
    return lines


def _place(role: str) -> tuple[int, str]:
    kind = role.partition("-")[0]
    return (CHAIN.index(kind) if kind in CHAIN else len(CHAIN)), role


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def _rate(rate_hz: float | None) -> str:
    return "" if rate_hz is None else f"{rate_hz:.{0 if rate_hz >= 99.95 else 1}f}"


def _ms(duration: float | None) -> str:
    if duration is None:
        return ""
    if duration < 0.9995:
        return f"{1000 * duration:.0f} us"
    return f"{duration:.3g} ms" if duration < 999.5 else _seconds(duration / 1000)


def _seconds(duration: float) -> str:
    if duration < 99.95:
        return f"{duration:.1f} s"
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
