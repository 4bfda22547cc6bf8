"""One line that shows how a run is going."""

from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.text import Text

from phasewatch.pipeline.processes.view import View

PLAIN_EVERY_S = 5.0


class ProgressLine:
    """Shows a `View`: redrawn in place on a terminal, else a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._last, self._shown = monotonic(), ""
        self._events = 0
        self._told: set[str] = set()

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def _notes(self, view: View) -> list[str]:
        """Return what is said once: where to ask, what comes in, that it stops."""
        carried = ", ".join(f"{name} {spec}" for name, spec in view.items.items())
        expected = "" if view.expected is None else f", {view.expected} expected"
        facts = {
            "control": f"control {view.control} (phasewatch status, stop)",
            "source": f"source {view.source}: {carried}{expected}" if view.source else "",
            "stopping": f"{view.stopping}: what was received still comes through"
            if view.stopping
            else "",
        }
        fresh = [text for key, text in facts.items() if text and key not in self._told]
        self._told |= {key for key, text in facts.items() if text}
        return fresh

    def __call__(self, view: View) -> None:
        """Show `view`."""
        for note in self._notes(view):
            self._console.print(note, markup=False, highlight=False, soft_wrap=True)
        new = min(view.n_events - self._events, len(view.events))
        for event in view.events[len(view.events) - new :]:
            self._console.print(
                f"{event.kind} at {event.seq} (id {event.id}), posterior {event.posterior:.3f}",
                highlight=False,
                markup=False,
            )
        self._events = view.n_events
        text = line(view)
        if self._console.is_terminal:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif text != self._shown and monotonic() - self._last > PLAIN_EVERY_S:
            self._last, self._shown = monotonic(), text
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(view: View) -> str:
    """Return the progress line of `view`."""
    tracker, sink = view.health.get("tracker", {}), view.health.get("sink", {})
    if not view.health.get("receiver", {}).get("received"):
        return f"starting ({', '.join(sorted(view.book.heard_ns)) or 'no process is up yet'})"
    done = int(tracker.get("classified", 0))
    expected = f"/{view.expected}" if view.expected is not None else ""
    parts = [f"{done}{expected} done", f"{sink.get('rate_hz', 0.0):.1f}/s"]
    lost = {
        "failed": tracker.get("failed", 0),
        "dropped": sum(tracker.get("dropped", {}).values()),
        "restarts": sum(view.book.restarts.values()),
    }
    parts += [f"{n} {name}" for name, n in lost.items() if n]
    if "p50_ms" in sink:
        parts.append(f"latency p50 {sink['p50_ms']:.0f} p99 {sink['p99_ms']:.0f} ms")
    if "phase" in tracker:
        phase, classes = int(tracker["phase"]), view.classes
        name = classes[phase] if phase >= 0 else "unknown"
        parts.append(f"phase {name} {tracker['posterior']:.2f}")
        parts += [
            f"zone {z['after'] + 1}-{z['before'] - 1}"
            for z in tracker["zones"]
            if z["passed"] and z["n"]
        ]
        parts.append(f"confidence {tracker['confidence']:.1%}")
    return "  ".join(parts)
