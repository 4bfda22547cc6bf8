"""Latency between the stamps of a batch, in a histogram of bounded memory.

Stamps are CLOCK_MONOTONIC in ns, so they compare on one host only. Bins grow by 1 %, so a quantile
is right to 1 %; the maximum is exact.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch

GROWTH = 1.01
SMALLEST_NS = 1e3
N_BINS = 2400  # 1 us * 1.01**2400 = 6.5 hours

HOPS = ("received", "sent", "reduced", "classified", "tracked")
STEP_NAMES = {"sent": "queue", "reduced": "reduce", "classified": "classify", "tracked": "track"}


class Histogram:
    """Counts of durations in bins of 1 %."""

    def __init__(self) -> None:
        self.counts = np.zeros(N_BINS, np.int64)
        self.longest_ns = 0

    def add(self, durations_ns: NDArray[np.int64]) -> None:
        """Count `durations_ns` (n,); negative ones (a clock that jumped) count as 0."""
        if len(durations_ns) == 0:
            return
        scaled = np.maximum(durations_ns, SMALLEST_NS) / SMALLEST_NS
        bins = np.ceil(np.log(scaled) / np.log(GROWTH)).astype(np.int64)
        np.add.at(self.counts, np.minimum(bins, N_BINS - 1), 1)
        self.longest_ns = max(self.longest_ns, int(durations_ns.max()))

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
        self.total.add(batch.stamps[hops[-1]] - batch.stamps[hops[0]])
        for before, after in pairwise(hops):
            histogram = self.steps.setdefault(STEP_NAMES[after], Histogram())
            histogram.add(batch.stamps[after] - batch.stamps[before])

    def summary(self) -> dict[str, Any]:
        """Return {p50, p90, p99, max, per_stage: {step: ...}} in ms; empty without counts."""
        if not self.steps:
            return {}
        steps = {name: histogram.summary() for name, histogram in self.steps.items()}
        return {**self.total.summary(), "per_stage": steps}
