"""``phasewatch bench reduction``: our integration and baseline against pyFAI and pybaselines.

One process, one run. For each number of bins and splitting every CPU method of pyFAI is tried once,
on the smallest detector; the four fastest then run interleaved with ours at every size, on the same
frames, and the fastest of their medians is the yardstick. The deviation is the largest difference
to pyFAI's ``(split, "csr", "cython")`` over the frames, in units of the pattern's maximum.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.measure import Samples, cores, interleaved, median_ms
from phasewatch.bench.yardsticks import Call, counts, fastest, methods, named
from phasewatch.calibration.baseline import asls
from phasewatch.calibration.cake import Cake
from phasewatch.calibration.integrate import Integrator, Split

SIZES = ("Lambda750k", "Lambda2M", "Lambda10M")
BINS = (1000, 4023)
SPLITS: tuple[Split, ...] = ("no", "bbox", "full")
CAKE_OF, CAKE_BINS = "Lambda2M", (1000, 360)
FRAMES = 8  # a call and core: what the kernel takes together
ROUNDS, BUDGET_S = 21, 4.0
BASELINE = {"lam": 1e5, "p": 0.002}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times are medians in ms per frame (per pattern).

    `ours_ms` with as many frames (patterns) per call as there are, `single_ms` with one.
    """

    what: str
    size: str
    bins: str
    cores: int
    ours_ms: float
    single_ms: float
    yardstick: str
    yardstick_ms: float
    floor_ms: float | None
    deviation: float
    samples_ns: Samples

    @property
    def ratio(self) -> float:
        """How many times faster we are."""
        return self.yardstick_ms / self.ours_ms


def rows(
    core_counts: Sequence[int], tell: Callable[[str], None], *, seed: int = 0
) -> Iterator[Row]:
    """Measure everything on each number of cores; `tell` is told what comes next."""
    chosen: dict[tuple[int, str], list[str]] = {}
    for size in SIZES:
        calibration = named(size)
        frames = counts(calibration, FRAMES * max(core_counts), seed)
        for n_bins in BINS:
            for split in SPLITS:
                tell(f"{size}, {n_bins} bins, split {split}")
                ours = Integrator(calibration, n_bins=n_bins, split=split)
                theirs = methods(calibration, (n_bins,), split)
                if (n_bins, split) not in chosen:
                    chosen[n_bins, split] = list(fastest(theirs, frames[0]))
                theirs = {name: theirs[name] for name in chosen[n_bins, split]}
                what = f"integrate, split {split}", size, str(n_bins)
                yield from _integration(what, ours, theirs, frames, core_counts)
    calibration = named(CAKE_OF)
    frames = counts(calibration, FRAMES * max(core_counts), seed)
    for split in SPLITS:
        tell(f"cake, {CAKE_OF}, split {split}")
        n_bins, n_azimuth = CAKE_BINS
        cake = Cake(calibration, n_bins=n_bins, n_azimuth=n_azimuth, split=split)
        theirs = fastest(methods(calibration, CAKE_BINS, split), frames[0])
        what = f"cake, split {split}", CAKE_OF, f"{n_bins} x {n_azimuth}"
        yield from _integration(what, cake, theirs, frames, core_counts)
    for n_bins in BINS:
        tell(f"baseline, {n_bins} points")
        for n_cores in core_counts:
            yield _baseline(n_bins, n_cores, seed)


def as_json(row: Row) -> dict[str, Any]:
    """Return `row` with its ratio, for the report."""
    return {**asdict(row), "ratio": row.ratio}


def _integration(
    what: tuple[str, str, str],
    ours: Call,
    theirs: dict[str, Call],
    frames: NDArray[Any],
    core_counts: Sequence[int],
) -> Iterator[Row]:
    reference = {i: theirs["csr cython"](frames[i]) for i in range(min(len(frames), FRAMES))}
    worst = 0.0
    for expected, pattern in zip(reference.values(), ours(frames[: len(reference)]), strict=True):
        both = np.isfinite(pattern) & np.isfinite(expected)  # pyFAI's maps have infinite cells
        error = np.abs(pattern - expected)[both].max() / expected[both].max()
        worst = max(worst, float(error))
    for n_cores in core_counts:
        some = frames[: FRAMES * n_cores]
        contenders: dict[str, Callable[[], object]] = {
            f"pyFAI {m}": partial(call, frames[0]) for m, call in theirs.items()
        }
        contenders["ours"] = partial(_spread, ours, some, n_cores)
        contenders["ours, one a call"] = partial(ours, frames[:1])
        contenders["memory"] = frames[0].max
        with cores(n_cores):
            samples = interleaved(contenders, rounds=ROUNDS, budget_s=BUDGET_S)
        samples["ours"] = [t // len(some) for t in samples["ours"]]
        best = min(theirs, key=lambda m: median_ms(samples[f"pyFAI {m}"]))
        yield Row(
            *what,
            cores=n_cores,
            ours_ms=median_ms(samples["ours"]),
            single_ms=median_ms(samples["ours, one a call"]),
            yardstick=f"pyFAI {best}",
            yardstick_ms=median_ms(samples[f"pyFAI {best}"]),
            floor_ms=median_ms(samples["memory"]),
            deviation=worst,
            samples_ns=samples,
        )


def _baseline(n_bins: int, n_cores: int, seed: int) -> Row:
    from pybaselines import Baseline

    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, n_bins)
    peaks = sum(np.exp(-(((x - c) / 0.004) ** 2)) for c in (0.2, 0.35, 0.5, 0.8))
    patterns = 5 + 3 * np.exp(-3 * x) + peaks + rng.normal(0, 0.05, (64, n_bins))
    fitter = Baseline(x)

    def theirs() -> NDArray[Any]:
        # tol=0 makes all the ten solutions of the thesis; pybaselines counts them from 0
        return np.asarray(fitter.asls(patterns[0], **BASELINE, max_iter=9, tol=0)[0])

    def ours(rows: NDArray[Any]) -> NDArray[Any]:
        return asls(rows, **BASELINE, n_iter=10)

    contenders: dict[str, Callable[[], object]] = {
        "pybaselines": theirs,
        "ours": partial(_spread, ours, patterns, n_cores),
        "ours, one a call": partial(ours, patterns[:1]),
    }
    with cores(n_cores):
        samples = interleaved(contenders, rounds=101, budget_s=BUDGET_S)
    samples["ours"] = [t // len(patterns) for t in samples["ours"]]
    return Row(
        what="baseline, asls",
        size="pattern",
        bins=str(n_bins),
        cores=n_cores,
        ours_ms=median_ms(samples["ours"]),
        single_ms=median_ms(samples["ours, one a call"]),
        yardstick="pybaselines",
        yardstick_ms=median_ms(samples["pybaselines"]),
        floor_ms=None,
        deviation=float(np.abs(ours(patterns[:1])[0] - theirs()).max() / patterns[0].max()),
        samples_ns=samples,
    )


def _spread(call: Call, items: NDArray[Any], n_cores: int) -> NDArray[Any]:
    """Call `call` on equal parts of `items`, one thread each."""
    if n_cores == 1:
        return call(items)
    with ThreadPoolExecutor(n_cores) as pool:
        return np.concatenate(list(pool.map(call, np.array_split(items, n_cores))))
