"""What is left of a run when it is over: SUMMARY.json, and a table for a person."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from phasewatch.pipeline.documents import WHOLE, RunStop

PACKAGES = ("phasewatch", "numpy", "numba", "pyFAI", "torch", "pyzmq", "msgpack", "h5py")


def versions() -> dict[str, str]:
    """Return the versions of what the results depend on."""
    known = {"python": python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def summary(stop: RunStop) -> dict[str, Any]:
    """Return the content of SUMMARY.json."""
    document = stop.model_dump(mode="json")
    loss = document.pop("loss")
    return {
        "run": document.pop("run_id"),
        "reason": document.pop("reason"),
        "frames": loss,
        **document,
        "versions": versions(),
    }


def write_summary(stop: RunStop, path: Path) -> None:
    """Write SUMMARY.json."""
    path.write_text(json.dumps(summary(stop), indent=2) + "\n", encoding="utf-8")


def lines(stop: RunStop, classes: tuple[str, ...] = ()) -> list[str]:
    """Return the summary in a few lines of text."""
    loss = stop.loss
    dropped = ", ".join(f"{n} dropped ({reason})" for reason, n in loss.dropped.items())
    unread = f" + {loss.not_read} not read" if loss.not_read else ""
    done = "classified" if classes else "reduced"
    text = [
        f"{loss.received} received + {loss.missed} missed{unread} = {loss.expected} expected; "
        f"{loss.classified} {done}, {dropped or '0 dropped'}, {loss.failed} failed"
    ]
    text += [f"{k.n} failed in {k.stage}, first {k.first_seq}: {k.error}" for k in stop.failures]
    if stop.rate_hz:
        latency = "".join(
            f", {name} {stop.latency_ms[name]:.1f} ms"
            for name in ("p50", "p99")
            if name in stop.latency_ms
        )
        text.append(f"{stop.rate_hz:.1f} items/s{latency}")
    if stop.confidence is not None and loss.classified:
        text.append(f"classification confidence {stop.confidence:.2%}")
    for zone in stop.zones:
        names = [
            classes[k] if k < len(classes) else f"class {k}"
            for k in (zone.boundary, zone.boundary + 1)
        ]
        if not zone.passed:
            text.append(f"{names[0]} | {names[1]}: not passed")
            continue
        text.append(
            f"{names[0]} | {names[1]}: last sure {zone.after}, first sure {zone.before}, "
            f"{zone.n} ambiguous between"
        )
    for event in stop.events:
        text.append(f"{event.kind} at {event.seq} (id {event.id}), posterior {event.posterior:.3f}")
    if stop.reason != WHOLE:
        text.append(f"ended early: {stop.reason}")
    return text
