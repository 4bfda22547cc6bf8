"""Timing of contenders on a noisy machine: interleaved, so that noise hits all alike; medians."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns

import numpy as np
from threadpoolctl import threadpool_limits

Samples = dict[str, list[int]]


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, budget_s: float
) -> Samples:
    """Call all contenders in turn, again and again; return the durations of each in ns.

    Each is called once before, uncounted. There are at most `rounds` rounds and, but for a first
    one, none is begun after `budget_s`. Every other round goes backwards, so that nobody always
    follows the same neighbour.
    """
    samples: Samples = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    order, begin = list(contenders), perf_counter_ns()
    for i in range(rounds):
        if i and perf_counter_ns() - begin > budget_s * 1e9:
            break
        for name in order if i % 2 == 0 else reversed(order):
            start = perf_counter_ns()
            contenders[name]()
            samples[name].append(perf_counter_ns() - start)
    return samples


def median_ms(samples: list[int]) -> float:
    """Return the median in ms."""
    return float(np.median(samples)) / 1e6


@contextmanager
def cores(n: int) -> Iterator[None]:
    """Restrict this process to `n` of its cores, and the thread pools of libraries to as many."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        with threadpool_limits(n):
            yield
    finally:
        os.sched_setaffinity(0, before)
