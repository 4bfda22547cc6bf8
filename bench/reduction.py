"""``phasewatch bench reduction``: our integration and baseline against pyFAI and pybaselines.

One process, one run. For each detector size, number of bins and splitting every CPU method of pyFAI
is tried once; the three fastest then run interleaved with ours, on the same frames, and the fastest
of their medians is the yardstick. The deviation is the largest difference to pyFAI's
``(split, "csr", "cython")`` over the frames, in units of the pattern's maximum.
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.detectors import detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.method_registry import IntegrationMethod

from phasewatch.bench.measure import Samples, cores, interleaved, median_ms
from phasewatch.calibration.baseline import asls
from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.integrate import Integrator

SIZES = ("Lambda750k", "Lambda2M", "Lambda10M")
BINS = (1000, 4023)
SPLITS = ("no", "bbox", "full")
FRAMES = 8  # a call and core: what the kernel takes together
ROUNDS, BUDGET_S = 21, 4.0
BASELINE = {"lam": 1e5, "p": 0.002}

# Like L2.poni of the real LAMBDA files: beam off the chip, 25.6 keV.
PONI = """poni_version: 2
Detector: {name}
Detector_config: {{}}
Distance: 0.309
Poni1: 0.0385
Poni2: 0.1407
Rot1: 0.0072
Rot2: 0.0015
Rot3: 0.0
Wavelength: 4.836e-11
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times are medians in ms per frame (per pattern).

    `ours_ms` with as many frames (patterns) per call as there are, `single_ms` with one.
    """

    what: str
    size: str
    n_bins: int
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


def rows(n_cores: int, tell: Callable[[str], None], *, seed: int = 0) -> Iterator[Row]:
    """Measure everything on `n_cores` cores; `tell` is told what comes next."""
    with cores(n_cores):
        for size in SIZES:
            shape = detector_factory(size).max_shape
            rng = np.random.default_rng(seed)
            frames = rng.poisson(0.5, (FRAMES * n_cores, *shape)).astype(np.uint16)
            for n_bins in BINS:
                for split in SPLITS:
                    tell(f"{size}, {n_bins} bins, split {split}, {n_cores} cores")
                    yield _integration(size, frames, n_bins, split, n_cores)
        for n_bins in BINS:
            tell(f"baseline, {n_bins} points, {n_cores} cores")
            yield _baseline(n_bins, n_cores, seed)


def as_json(row: Row) -> dict[str, Any]:
    """Return `row` with its ratio, for the report."""
    return {**asdict(row), "ratio": row.ratio}


def _integration(size: str, frames: NDArray[Any], n_bins: int, split: Any, n_cores: int) -> Row:
    calibration = _calibration(size)
    ours = Integrator(calibration, n_bins=n_bins, split=split)
    theirs = _pyfai(calibration, n_bins, split)
    contenders: dict[str, Callable[[], object]] = {
        f"pyFAI {m}": partial(call, frames[0]) for m, call in theirs.items()
    }
    contenders["ours"] = partial(_spread, ours, frames, n_cores)
    contenders["ours, one a call"] = partial(ours, frames[:1])
    contenders["memory"] = frames[0].max
    samples = interleaved(contenders, rounds=ROUNDS, budget_s=BUDGET_S)
    samples["ours"] = [t // len(frames) for t in samples["ours"]]
    best = min(theirs, key=lambda m: median_ms(samples[f"pyFAI {m}"]))
    patterns = ours(frames)
    worst = 0.0
    for frame, pattern in zip(frames, patterns, strict=True):
        reference = theirs["csr cython"](frame)
        filled = np.isfinite(pattern)
        worst = max(worst, float(np.abs(pattern - reference)[filled].max() / reference.max()))
    return Row(
        what=f"integrate, split {split}",
        size=size,
        n_bins=n_bins,
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
    samples = interleaved(contenders, rounds=101, budget_s=BUDGET_S)
    samples["ours"] = [t // len(patterns) for t in samples["ours"]]
    return Row(
        what="baseline, asls",
        size="pattern",
        n_bins=n_bins,
        cores=n_cores,
        ours_ms=median_ms(samples["ours"]),
        single_ms=median_ms(samples["ours, one a call"]),
        yardstick="pybaselines",
        yardstick_ms=median_ms(samples["pybaselines"]),
        floor_ms=None,
        deviation=float(np.abs(ours(patterns[:1])[0] - theirs()).max() / patterns[0].max()),
        samples_ns=samples,
    )


def _calibration(size: str) -> Calibration:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{size}.poni"
        path.write_text(PONI.format(name=size), encoding="utf-8")
        return Calibration.load(path)


def _pyfai(
    calibration: Calibration, n_bins: int, split: str
) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
    """Return the three fastest CPU methods of pyFAI by name, and csr cython."""
    poni, detector = calibration.poni, calibration.poni.make_detector()
    ai = AzimuthalIntegrator(
        *(poni.distance, poni.poni1, poni.poni2, poni.rot1, poni.rot2, poni.rot3),
        detector=detector,  # as `make_detector` gives it: a count of 0 is a count
        wavelength=calibration.wavelength,
    )
    mask = np.array(calibration.mask)

    def integrate(method: IntegrationMethod, frame: NDArray[Any]) -> NDArray[Any]:
        result = ai.integrate1d(frame, n_bins, unit="2th_deg", mask=mask, method=method)
        return np.asarray(result.intensity)

    blank, calls, took = np.ones(mask.shape, np.uint16), {}, {}
    for method in IntegrationMethod.select_method(1, split, "*", "*", degradable=False):
        if method.impl_lower == "opencl" and "CPU" not in str(method.target_name).upper():
            continue
        name = f"{method.algo_lower} {method.impl_lower}"
        call = partial(integrate, method)
        call(blank)  # makes the plan
        start = perf_counter_ns()
        call(blank)
        calls[name], took[name] = call, perf_counter_ns() - start
    chosen = sorted(took, key=took.__getitem__)[:3]
    return {name: calls[name] for name in {*chosen, "csr cython"}}


def _spread(
    call: Callable[[NDArray[Any]], NDArray[Any]], items: NDArray[Any], n_cores: int
) -> NDArray[Any]:
    """Call `call` on equal parts of `items`, one thread each."""
    if n_cores == 1:
        return call(items)
    with ThreadPoolExecutor(n_cores) as pool:
        return np.concatenate(list(pool.map(call, np.array_split(items, n_cores))))
