"""When each item is due, fixed before the run; and how to wait for that instant.

Instants are CLOCK_MONOTONIC in ns. A schedule is open loop: it does not depend on how the system
under test is doing, so a stall counts against every item that was due in it.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SPIN_NS = 50_000  # a sleep ends up to about 60 us late: the rest is waited for busily


def offsets(n: int, *, rate_hz: float, poisson: bool = False, seed: int = 0) -> NDArray[np.int64]:
    """Return when each of `n` items is due after the first, (n,) ns, ascending from 0.

    Parameters
    ----------
    rate_hz
        Items per second; infinite: all at once.
    poisson
        Independent exponential intervals instead of constant ones, scaled so that the last item is
        due when it would be at constant intervals: a Poisson process given its number of events.
    seed
        Of the exponential intervals.
    """
    if n < 1 or not rate_hz > 0:
        raise ValueError(f"a schedule of n={n} items at {rate_hz} Hz: both must be above 0")
    if np.isinf(rate_hz):
        return np.zeros(n, np.int64)
    if not poisson:
        return np.rint(np.arange(n) * (1e9 / rate_hz)).astype(np.int64)
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_hz, n)
    gaps[0] = 0
    if n > 1:
        gaps *= (n - 1) * 1e9 / rate_hz / gaps.sum()
    return np.rint(np.cumsum(gaps)).astype(np.int64)


def wait_until(
    due_ns: int,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until `due_ns`, busily for the last `SPIN_NS` only; return the time then."""
    now = clock()
    while (left := due_ns - now) > 0:
        if left > SPIN_NS:
            sleep((left - SPIN_NS) / 1e9)
        now = clock()
    return now
