"""From a measurement to its report: the JSON, its raw times beside it, a few lines of text."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from phasewatch.bench import machine
from phasewatch.bench.load.latency import Times, latencies, percentiles, rate_hz, summary
from phasewatch.bench.load.measure import Measured
from phasewatch.bench.load.verdict import SHORTEST_S, Verdict, judge

Report = dict[str, Any]


def report(
    measured: Measured, null: Times, *, note: str, shortest_s: float = SHORTEST_S
) -> tuple[Report, Verdict]:
    """Return the report of a run, and its verdict, which stands in the report too."""
    found = summary(measured.times)
    alone = percentiles(latencies(null))
    facts = measured.facts(found.get("p99"), alone.get("p99"))
    verdict = judge(facts, shortest_s=shortest_s)
    load = measured.load
    described = machine.describe()
    document = {
        "scenario": load.scenario,
        "verdict": str(verdict),
        "reason": verdict.reason,
        "warnings": list(verdict.warnings),
        "what": note,
        "rate_hz": round(rate_hz(measured.times), 3),
        "offered_hz": load.rate_hz if load.scenario == "server" else None,
        "arrivals": "poisson" if load.poisson else "constant",
        "duration_s": round(measured.duration_s, 3),
        "n": load.n,
        "seed": load.seed,
        "latency_ms": found,
        "frames": facts.frames,
        "null": {"rate_hz": round(rate_hz(null), 3), "latency_ms": alone},
        "generator": (
            {**asdict(facts.generator), "real_time": measured.real_time}
            if facts.generator
            else None
        ),
        "memory_mib": measured.memory,
        "machine": {k: v for k, v in described.items() if k != "versions"},
        "versions": described["versions"],
        "configuration": measured.config.model_dump(mode="json"),
        "raw": None,
    }
    return document, verdict


def write_json(document: Report, path: Path, raw: Mapping[str, Times] | None = None) -> None:
    """Write `document`, and `raw` (name -> columns of int64 ns) beside it as HDF5."""
    if raw is not None:
        beside = path.with_suffix(".raw.h5")
        with h5py.File(beside, "w") as file:
            for name, times in raw.items():
                group = file.create_group(name)
                for column, values in times.items():
                    group.create_dataset(column, data=values, shuffle=True, compression="gzip")
        document = {**document, "raw": beside.name}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def lines(document: Report) -> list[str]:
    """Return the report in a few lines for a terminal."""
    latency, null = document["latency_ms"], document["null"]
    text = [f"{document['verdict']}: {document['reason']}"]
    text += [f"warning: {warning}" for warning in document["warnings"]]
    text.append(f"what: {document['what']}")
    offered = f" ({document['offered_hz']:g} offered)" if document["offered_hz"] else ""
    text.append(f"rate: {document['rate_hz']:.1f} items/s{offered}")
    text.append(f"latency from due: {quantiles(latency)}")
    text += [
        f"  {name:<10} {quantiles(step)}" for name, step in latency.get("per_stage", {}).items()
    ]
    text.append(f"harness alone: {null['rate_hz']:.1f} items/s, {quantiles(null['latency_ms'])}")
    if (generator := document["generator"]) is not None:
        late, worst = generator["late_share"], generator["worst_ms"]
        text.append(f"generator: {late:.2%} late, the latest by {worst:.2f} ms")
    grown = {k: m["own_growth"] for k, m in document["memory_mib"].items() if m["samples"] >= 10}
    if grown:
        worst_role = max(grown, key=lambda role: grown[role])
        text.append(f"memory: most growth after warm-up {grown[worst_role]:+.1%} ({worst_role})")
    return text


def quantiles(latency: Mapping[str, Any]) -> str:
    """Return percentiles as one line."""
    said = [f"{name} {value:.3f}" for name, value in latency.items() if name != "per_stage"]
    return ", ".join(said) + " ms" if said else "nothing came"
