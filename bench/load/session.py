"""The scenarios: each puts together a workload, measurements and a report."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from phasewatch.bench.load.latency import Times, summary
from phasewatch.bench.load.measure import Measured, Update, run_chain, run_null
from phasewatch.bench.load.peak import Probe, best, bisect
from phasewatch.bench.load.plan import Load, Scenario
from phasewatch.bench.load.report import Report, report
from phasewatch.bench.load.verdict import SHORTEST_S, judge
from phasewatch.bench.load.workload import Workload
from phasewatch.pipeline.errors import PipelineError

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "phasewatch-load-"
CONFIRMATIONS = 4
BACK_OFF = 0.9
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Session:
    """A folder of one invocation, its workload, and who is told how it goes."""

    folder: Path
    workload: Workload
    tell: Tell = lambda text: None
    on_update: Update = lambda view: None
    _numbers: Iterator[int] = field(default_factory=count)

    def load(self, scenario: Scenario, n: int, **more: Any) -> Load:
        """Return a load of `n` items of the workload."""
        w = self.workload
        return Load(scenario, n, store=str(w.store), stored=w.stored, at_once=w.at_once, **more)

    def chain(self, load: Load) -> Measured:
        """Give `load` to the chain."""
        with self._folder("run") as folder:
            return run_chain(self.workload, load, folder, self.on_update)

    def null(self, load: Load) -> Times:
        """Give `load` to nothing."""
        with self._folder("null") as folder:
            return run_null(load, folder)

    @contextmanager
    def _folder(self, kind: str) -> Iterator[Path]:
        folder = self.folder / f"{kind}{next(self._numbers)}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """A report and the raw times behind it."""

    report: Report
    times: Times
    null: Times
    generator: dict[str, Any]
    more: dict[str, Times] = field(default_factory=dict)

    @property
    def raw(self) -> dict[str, Times]:
        """The times by what they are of."""
        known = {"chain": self.times, "null": self.null, "generator": self.generator}
        return {**known, **self.more}


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a folder in shared memory where there is some, for stores and sockets; remove it.

    What an invocation left that was killed is removed too.
    """
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    for old in parent.glob(f"{PREFIX}*-*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=parent) as folder:
        yield Path(folder)


def one(session: Session, load: Load) -> Finding:
    """Measure the harness alone, then the chain, under the same load."""
    session.tell(f"harness alone: {load.scenario}, {load.n} items")
    null = session.null(load)
    session.tell(f"chain: {load.scenario}, {load.n} items")
    measured = session.chain(load)
    document, _ = report(measured, null, note=session.workload.note)
    return finding_of(document, measured, null)


def find_peak(
    session: Session,
    *,
    limit_ms: float,
    duration_s: float,
    step_s: float,
    poisson: bool,
    seed: int,
    burst: int,
) -> Finding:
    """Look for the highest rate of a server whose p99 stays under `limit_ms`.

    An offline run of `burst` items gives the rate to begin with; then runs of `step_s` halve the
    interval. The answer is a run of `duration_s` at the rate found, or at 0.9 of it and so on where
    it does not hold for so long; only that run's verdict counts, and what it needs is asked of all
    but the length.
    """

    def server(rate_hz: float, seconds: float) -> Load:
        n = max(int(rate_hz * seconds), 1)
        return session.load("server", n, rate_hz=rate_hz, poisson=poisson, seed=seed)

    def probe(rate_hz: float) -> Probe:
        measured = session.chain(server(rate_hz, step_s))
        p99 = summary(measured.times).get("p99")
        verdict = judge(measured.facts(p99, None), shortest_s=0.0)
        said = f"p99 {p99:.2f} ms" if p99 is not None else "nothing came"
        said += "" if verdict.valid else f", {verdict.reason}"
        session.tell(f"{rate_hz:.1f} Hz: {said}")
        return Probe(rate_hz, p99, verdict.valid, verdict.reason)

    session.tell("how fast at most: an offline run")
    high = report(session.chain(session.load("offline", burst)), {}, note="")[0]["rate_hz"]
    if not high:
        raise PipelineError("find-peak: nothing came through the chain at all")
    probes = bisect(probe, high_hz=high, limit_ms=limit_ms)
    found = best(probes, limit_ms)
    rate = found.rate_hz if found else min(p.rate_hz for p in probes)
    for _ in range(CONFIRMATIONS):
        finding = one(session, server(rate, duration_s))
        p99 = finding.report["latency_ms"].get("p99")
        good = finding.report["verdict"] == "VALID" or duration_s < SHORTEST_S
        held = good and p99 is not None and p99 < limit_ms
        if held or not found:
            break
        session.tell(f"{rate:.1f} Hz did not hold for {duration_s:g} s")
        rate *= BACK_OFF
    document = dict(finding.report)
    document |= {
        "scenario": "find-peak",
        "limit_p99_ms": limit_ms,
        "peak_hz": document["offered_hz"] if held else None,
        "probes": [
            {"rate_hz": p.rate_hz, "p99_ms": p.p99_ms, "valid": p.valid, "reason": p.reason}
            for p in probes
        ],
    }
    if not held and document["verdict"] == "VALID":
        said = f"no rate holds a p99 below {limit_ms:g} ms; this run: {p99:.3f} ms"
        document |= {"verdict": "INVALID", "reason": said}
    return replace(finding, report=document)


def finding_of(document: Report, measured: Measured, null: Times) -> Finding:
    """Put a report and the times behind it together."""
    due = (
        {}
        if measured.generator is None
        else dict(zip(("due", "announced"), measured.generator, strict=True))
    )
    return Finding(document, measured.times, null, due)
