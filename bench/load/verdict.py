"""Whether a run counts: VALID or INVALID, and why. Pure.

What must hold:

- the chain ended without an error and, being lossless, lost nothing;
- the generator kept its schedule: at most 1 % of the items were announced more than 1 ms after they
  were due (a fifth of the 5 ms that p99 is to stay under; the latency has the delay in it anyway);
  offline, where all are due at once, it announces them as fast as it can;
- a latency claim (single-stream, server) rests on at least 60 s (as in MLPerf Inference, Reddi et
  al. 2020, arXiv:1911.02549).

That the harness alone (the null system) has a p99 of a fifth or more of what was measured is a
warning: the figure is then in part the harness's own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATE_NS = 1_000_000
LATE_SHARE = 0.01
SHORTEST_S = 60.0
NULL_SHARE = 0.2
LATENCY_CLAIMS = ("single-stream", "server")


@dataclass(frozen=True, slots=True)
class Generator:
    """How well the generator kept its schedule: late items as a share, the latest in ms."""

    late_share: float
    worst_ms: float
    late_ms: float = LATE_NS / 1e6

    @classmethod
    def of(cls, times: NDArray[np.int64]) -> "Generator":
        """Judge `times` (2, n) ns: when each item was due, and when it was announced."""
        late = times[1] - times[0]
        return cls(float(np.mean(late > LATE_NS)), float(late.max()) / 1e6)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verdict rests on.

    Attributes
    ----------
    error
        Of the chain, or None.
    frames
        The loss table of SUMMARY.json.
    kept
        Items whose times were kept.
    duration_s
        From the first item due to the last one due (single-stream: delivered).
    generator
        None where it did not come to its end.
    p99_ms, null_p99_ms
        Of the chain and of the null system, None where not measured.
    """

    scenario: str
    n: int
    error: str | None
    frames: dict[str, Any]
    kept: int
    lossless: bool
    duration_s: float
    generator: Generator | None
    p99_ms: float | None = None
    null_p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """VALID or INVALID; the reason in one line; what else a reader should know."""

    valid: bool
    reason: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "VALID" if self.valid else "INVALID"


def judge(facts: Facts, *, shortest_s: float = SHORTEST_S) -> Verdict:
    """Return the verdict on a run."""
    reasons = _faults(facts)
    if facts.scenario in LATENCY_CLAIMS and facts.duration_s < shortest_s * 0.999:
        reasons.append(
            f"{facts.duration_s:.1f} s is short of the {shortest_s:g} s a latency claim needs"
        )
    warnings = []
    null, p99 = facts.null_p99_ms, facts.p99_ms
    if null is not None and p99 is not None and null >= NULL_SHARE * p99:
        warnings.append(
            f"the harness alone has a p99 of {null:.3f} ms, more than a fifth of {p99:.3f} ms"
        )
    if reasons:
        return Verdict(False, "; ".join(reasons), tuple(warnings))
    late = facts.generator.late_share if facts.generator else 0.0
    kept = f"{late:.2%} of the items announced later than {LATE_NS / 1e6:g} ms after they were due"
    return Verdict(True, f"{facts.n} items in {facts.duration_s:.1f} s, {kept}", tuple(warnings))


def _faults(facts: Facts) -> list[str]:
    if facts.error is not None:
        return [facts.error]
    reasons = []
    frames = facts.frames
    dropped = sum(frames.get("dropped", {}).values())
    if frames.get("failed"):
        reasons.append(f"{frames['failed']} items failed")
    if facts.lossless and (frames.get("classified") != facts.n or dropped):
        reasons.append(
            f"lossless, but {frames.get('classified')} of {facts.n} items came through "
            f"({frames.get('missed', 0)} missed, {dropped} dropped)"
        )
    if facts.kept != frames.get("classified"):
        reasons.append(f"times of {facts.kept} items for {frames.get('classified')} classified")
    if facts.generator is None:
        reasons.append("the generator did not come to its end")
    elif facts.scenario != "offline" and facts.generator.late_share > LATE_SHARE:
        reasons.append(
            f"{facts.generator.late_share:.1%} of the items were announced more than "
            f"{LATE_NS / 1e6:g} ms late, at most {LATE_SHARE:.0%} may be; the latest by "
            f"{facts.generator.worst_ms:.1f} ms: this machine cannot make this load"
        )
    return reasons
