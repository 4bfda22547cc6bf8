"""Latency between the stamps of a batch, in a histogram of bounded memory.

Stamps are CLOCK_MONOTONIC in ns, so they compare on one host only. Bins grow by 1 %, so a quantile
is right to 1 %; the maximum is exact.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch

GROWTH = 1.01
LOG_GROWTH = float(np.log(GROWTH))
SMALLEST_NS = 1e3
N_BINS = 2400  # 1 us * 1.01**2400 = 6.5 hours

HOPS = ("received", "sent", "reduced", "classified", "tracked")
STEP_NAMES = {"sent": "queue", "reduced": "reduce", "classified": "classify", "tracked": "track"}


def bins(durations_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bin of each duration; of many at once, for the logarithms cost most."""
    scaled = np.log(np.maximum(durations_ns, SMALLEST_NS) / SMALLEST_NS) / LOG_GROWTH
    return np.minimum(np.ceil(scaled).astype(np.int64), N_BINS - 1)


class Histogram:
    """Counts of durations in bins of 1 %."""

    def __init__(self) -> None:
        self.counts = np.zeros(N_BINS, np.int64)
        self.longest_ns = 0

    def add(self, durations_ns: NDArray[np.int64], where: NDArray[np.int64] | None = None) -> None:
        """Count `durations_ns` (n,), whose bins are `where` if they are known already.

        Negative ones (a clock that jumped) count as 0.
        """
        np.add.at(self.counts, bins(durations_ns) if where is None else where, 1)
        self.longest_ns = max(self.longest_ns, int(durations_ns.max(initial=0)))

    def quantile_ms(self, q: float) -> float:
        """Return the duration in ms below which a share `q` of the counts lies."""
        rank = q * self.counts.sum()
        index = int(np.searchsorted(np.cumsum(self.counts), max(rank, 1)))
        return min(SMALLEST_NS * GROWTH**index, self.longest_ns) / 1e6

    def summary(self) -> dict[str, float]:
        """Return p50, p90, p99 and max in ms, rounded to a microsecond."""
        quantiles = {f"p{int(q * 100)}": self.quantile_ms(q) for q in (0.5, 0.9, 0.99)}
        return {k: round(v, 3) for k, v in {**quantiles, "max": self.longest_ns / 1e6}.items()}


class Latency:
    """From received to tracked, and each step between."""

    def __init__(self) -> None:
        self.total = Histogram()
        self.steps: dict[str, Histogram] = {}

    def add(self, batch: Batch) -> None:
        """Count the items of `batch` by its stamps."""
        hops = [hop for hop in HOPS if hop in batch.stamps]
        if len(hops) < 2:
            return
        stamps = np.stack([batch.stamps[hop] for hop in hops])
        durations = np.concatenate([stamps[-1:] - stamps[:1], np.diff(stamps, axis=0)])
        where = bins(durations)
        self.total.add(durations[0], where[0])
        for hop, taken, at in zip(hops[1:], durations[1:], where[1:], strict=True):
            self.steps.setdefault(STEP_NAMES[hop], Histogram()).add(taken, at)

    def summary(self) -> dict[str, Any]:
        """Return {p50, p90, p99, max, per_stage: {step: ...}} in ms; empty without counts."""
        if not self.steps:
            return {}
        steps = {name: histogram.summary() for name, histogram in self.steps.items()}
        return {**self.total.summary(), "per_stage": steps}
