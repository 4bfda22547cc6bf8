"""Exact percentiles of latencies, in total and from stamp to stamp.

Latency is counted from the instant at which an item was **due**, not from when it was sent, so that
a system which stalls the generator cannot hide the wait (coordinated omission).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = Mapping[str, NDArray[np.int64]]
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
# What ends at each stamp; a stamp that is not here has its own name.
STAGES = {
    "announced": "generator",
    "received": "read",
    "sent": "queue",
    "reduced": "reduce",
    "classified": "classify",
    "tracked": "track",
    "delivered": "deliver",
}


def percentiles(durations_ns: NDArray[np.int64]) -> dict[str, float]:
    """Return p50, p90, p99, p999 and max of `durations_ns` (n,) in ms.

    A percentile is a duration that occurred: the smallest that is at least as long as the share.
    Empty without durations.
    """
    if not len(durations_ns):
        return {}
    q = np.quantile(durations_ns, [*QUANTILES.values(), 1.0], method="inverted_cdf")
    return dict(zip([*QUANTILES, "max"], (round(float(v) / 1e6, 6) for v in q), strict=True))


def hops(times: Times) -> list[str]:
    """Return the stamps in the order in which an item passes them: that of their medians."""
    stamps = [name for name in times if name not in ("seq", "id")]
    return sorted(stamps, key=lambda name: float(np.median(times[name])))


def latencies(times: Times) -> NDArray[np.int64]:
    """Return how long each item took from being due to being delivered, (n,) ns."""
    if not times:
        return np.empty(0, np.int64)
    return times["delivered"] - times["due"]


def summary(times: Times) -> dict[str, Any]:
    """Return the percentiles in ms, and ``per_stage`` those from each stamp to the next."""
    if not times:
        return {}
    steps = {
        STAGES.get(after, after): percentiles(times[after] - times[before])
        for before, after in pairwise(hops(times))
    }
    return {**percentiles(latencies(times)), "per_stage": steps}


def rate_hz(times: Times) -> float:
    """Return items per second, from the first one due to the last one delivered."""
    if not times:
        return 0.0
    took = int(times["delivered"].max()) - int(times["due"].min())
    return len(times["due"]) / took * 1e9 if took > 0 else 0.0


def exceedance(
    durations_ns: NDArray[np.int64], points: int = 400
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return durations in ms and the share of items that took longer, for a curve of `points`.

    The shares go down to one item; points are equidistant in the logarithm of the share, so the
    tail is as well resolved as the middle.
    """
    n = len(durations_ns)
    longest = np.sort(durations_ns)[::-1]
    rank = np.unique(np.geomspace(1, n, points).astype(np.int64))[::-1]
    return longest[rank - 1] / 1e6, rank / n


def throughput(times: Times) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the edges (k + 1,) of equal intervals in s, and the items per s delivered in each.

    There are at most 120 intervals, and so few that several deliveries fall into each.
    """
    begin = int(times["due"].min())
    bins = int(np.clip(len(np.unique(times["delivered"])) // 4, 5, 120))
    since = (times["delivered"] - begin) / 1e9
    counts, edges = np.histogram(since, bins=bins, range=(0.0, float(since.max()) or 1.0))
    return edges, counts / np.diff(edges)
