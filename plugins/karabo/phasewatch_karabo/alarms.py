"""When the operator has to look: pure, from what is known of the run."""

from dataclasses import dataclass

from phasewatch.pipeline.health import Status


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still good; 0: not looked at. `confidence` from 0 to 1, the others in seconds."""

    latency_s: float
    age_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Flow:
    """What the node itself sees: frames lost here since the last look, age of the last result."""

    lost: int
    age_s: float
    waiting: bool


def zone_text(status: Status) -> str:
    """Return the ambiguity zones that were passed, as first-last."""
    zones = () if status.track is None else status.track.zones
    return ", ".join(f"{z.after + 1}-{z.before - 1}" for z in zones if z.passed and z.n)


def lost(status: Status) -> int:
    """Return how many frames of the run the chain has lost: missed, dropped, failed."""
    frames = status.frames
    return frames.missed + sum(frames.dropped.values()) + frames.failed


def warnings(status: Status, before: Status | None, flow: Flow, limits: Limits) -> list[str]:
    """Return what is not good, each in a few words; none: nothing.

    Parameters
    ----------
    before
        The status of the last look; what was lost before does not warn for ever.
    """
    same = before is not None and before.run_id == status.run_id
    news = lost(status) - (lost(before) if before is not None and same else 0)
    track, p99 = status.track, status.latency_ms.get("p99", 0.0) / 1e3
    found = {
        f"{flow.lost} frames lost in the node": flow.lost > 0,
        f"{news} frames lost in the chain": news > 0,
        f"latency {p99:.3g} s": 0 < limits.latency_s < p99,
        f"no result for {flow.age_s:.1f} s": flow.waiting and 0 < limits.age_s < flow.age_s,
        "phase unknown": track is not None and track.phase == "unknown",
    }
    if track is not None and track.confidence is not None and any(z.passed for z in track.zones):
        found[f"confidence {track.confidence:.2f}"] = track.confidence < limits.confidence
    return [text for text, true in found.items() if true]
