"""How the reduction's cost grows with pixels and with frames, and what it takes to start.

All points of a curve run interleaved, on one core; pyFAI's method that is its fastest at most sizes
(csc cython) runs beside them.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from phasewatch.bench.measure import cores, interleaved, median_ms
from phasewatch.bench.yardsticks import counts, methods, named, square
from phasewatch.calibration.integrate import Integrator

SIDES = (500, 1000, 1414, 2000, 3162)  # 0.25, 1, 2, 4, 10 megapixels
FRAMES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 64)
SPLITS = ("no", "bbox", "full")
DETECTOR, N_BINS = "Lambda2M", 4023
ROUNDS, BUDGET_S, STARTS = 11, 10.0, 3


@dataclass(frozen=True, slots=True)
class Point:
    """A median time `ms` of `what` at `x`, which counts in `unit`; `per` is ms per frame and x."""

    what: str
    x: float
    unit: str
    ms: float
    per: float
    samples_ns: list[int]


def points(tell: Callable[[str], None]) -> Iterator[Point]:
    """Measure all curves on one core; `tell` is told what comes next."""
    with cores(1):
        for split in SPLITS[:2]:
            tell(f"pixels, split {split}")
            yield from _pixels(split)
        for split in SPLITS[:2]:
            tell(f"frames a call, split {split}")
            yield from _frames(split)
        for split in SPLITS:
            tell(f"start, split {split}")
            yield from _start(split)


def as_json(point: Point) -> dict[str, Any]:
    """Return `point` for the report."""
    return asdict(point)


def _pixels(split: Any) -> Iterator[Point]:
    calls: dict[str, Callable[[], object]] = {}
    for side in SIDES:
        calibration = square(side)
        frames = counts(calibration, 8)
        ours = Integrator(calibration, n_bins=N_BINS, split=split)
        theirs = methods(calibration, (N_BINS,), split)
        calls[f"8 a call {side}"] = partial(ours, frames)
        calls[f"one a call {side}"] = partial(ours, frames[:1])
        calls[f"pyFAI {side}"] = partial(theirs["csc cython"], frames[0])
    samples = interleaved(calls, rounds=ROUNDS, budget_s=BUDGET_S)
    for name, n in (("8 a call", 8), ("one a call", 1), ("pyFAI", 1)):
        for side in SIDES:
            taken = samples[f"{name} {side}"]
            ms, megapixels = median_ms(taken) / n, side * side / 1e6
            yield Point(f"split {split}, {name}", megapixels, "Mpx", ms, ms / megapixels, taken)


def _frames(split: Any) -> Iterator[Point]:
    calibration = named(DETECTOR)
    ours = Integrator(calibration, n_bins=N_BINS, split=split)
    frames = counts(calibration, max(FRAMES))
    calls: dict[str, Callable[[], object]] = {str(n): partial(ours, frames[:n]) for n in FRAMES}
    samples = interleaved(calls, rounds=ROUNDS, budget_s=BUDGET_S)
    for n in FRAMES:
        ms = median_ms(samples[str(n)])
        yield Point(f"split {split}, {DETECTOR}", n, "frames", ms, ms / n, samples[str(n)])


def _start(split: Any) -> Iterator[Point]:
    calibration = named(DETECTOR)
    make = partial(Integrator, calibration, n_bins=N_BINS, split=split)
    with tempfile.TemporaryDirectory() as folder:

        def start(cache: str) -> None:
            with _plans_in(cache):
                make()

        where = {"not cached": "", "cached": folder}
        calls = {name: partial(start, cache) for name, cache in where.items()}
        samples = interleaved(calls, rounds=STARTS, budget_s=60)
    for name, taken in samples.items():
        what = f"plan of {DETECTOR}, split {split}, {name}"
        yield Point(what, 1, "plan", median_ms(taken), median_ms(taken), taken)


@contextmanager
def _plans_in(folder: str) -> Iterator[None]:
    before = os.environ.get("PHASEWATCH_CACHE")
    os.environ["PHASEWATCH_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["PHASEWATCH_CACHE"]
        if before is not None:
            os.environ["PHASEWATCH_CACHE"] = before
