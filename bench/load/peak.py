"""The highest rate at which the p99 stays under a limit. Pure: runs are passed in."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """One run at `rate_hz`: its p99 in ms (None: nothing came) and whether it was valid."""

    rate_hz: float
    p99_ms: float | None
    valid: bool
    reason: str = ""

    def passes(self, limit_ms: float) -> bool:
        """Whether the run is valid and its p99 below the limit."""
        return self.valid and self.p99_ms is not None and self.p99_ms < limit_ms


def bisect(
    run: Callable[[float], Probe],
    *,
    high_hz: float,
    limit_ms: float,
    resolution: float = 0.05,
    most: int = 8,
) -> list[Probe]:
    """Return the runs that were made, the last one that passes being the answer.

    Rates are halved from `high_hz` until one passes, then the interval between that and the lowest
    that did not is halved until it is narrower than `resolution` of its lower end, `most` runs in
    all.
    """
    probes: list[Probe] = []
    low, high, rate = 0.0, high_hz, high_hz
    while len(probes) < most:
        probes.append(run(rate))
        if probes[-1].passes(limit_ms):
            low = rate
            if rate == high_hz:
                break
        else:
            high = rate
        if low and high - low <= resolution * low:
            break
        rate = (low + high) / 2
    return probes


def best(probes: list[Probe], limit_ms: float) -> Probe | None:
    """Return the fastest run that passes; None where none does."""
    passing = [probe for probe in probes if probe.passes(limit_ms)]
    return max(passing, key=lambda probe: probe.rate_hz, default=None)
