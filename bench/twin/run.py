"""One simulated run: frame i, pattern i, and the truth about both.

What is random is drawn from the run's seed and the frame's number alone, so frame i is the same in
whatever order, and in whatever process, it is asked for.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from phasewatch.bench.twin import experiment as experiments
from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.catalogue import EXPERIMENTS
from phasewatch.bench.twin.detector import LAYOUTS, N_BINS, SATURATION, Detector, Layout
from phasewatch.bench.twin.experiment import Conditions, Experiment
from phasewatch.bench.twin.pattern import RING_SETS, Lines, Model
from phasewatch.bench.twin.sampler import sample
from phasewatch.bench.twin.spots import Spots, spots
from phasewatch.pipeline.errors import PipelineError

# The table of mean counts: steps of 0.004 deg, less than half a pixel, and sectors of 1 deg in
# azimuth (about the beam), each with its own graininess.
STEP_DEG = 0.004
SECTOR_DEG = 1.0


@dataclass(frozen=True, eq=False)
class Run:
    """A run of `experiment` under `conditions`, seen by a detector of `layout`."""

    experiment: Experiment
    conditions: Conditions
    layout: Layout

    @cached_property
    def pressure_gpa(self) -> Floats:
        """True pressure of every frame (frames,)."""
        return experiments.pressures(self.conditions)

    @cached_property
    def fraction(self) -> Floats:
        """True fraction of atoms in the high-pressure phase (frames,)."""
        return experiments.fractions(self.conditions, self.pressure_gpa)

    @cached_property
    def label(self) -> NDArray[np.int64]:
        """True class of every frame (frames,)."""
        return experiments.labels(self.fraction)

    @cached_property
    def detector(self) -> Detector:
        """The detector in this run."""
        return Detector(self.layout, self.conditions, self.experiment.wavelength_m)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """What is known to be invalid (height, width): the detector's faults, the anvils' spots."""
        mask = self.detector.mask.copy()
        mask.ravel()[self._spots.masked()] = True
        return mask

    @cached_property
    def axis(self) -> Floats:
        """Two theta of the bins in deg (N_BINS,), the same for all runs of the experiment."""
        lo, hi = self.experiment.two_theta_deg
        return lo + (np.arange(N_BINS) + 0.5) * (hi - lo) / N_BINS

    @cached_property
    def _grid(self) -> Floats:
        two_theta = self.detector.two_theta_deg
        return np.arange(float(two_theta.min()), float(two_theta.max()) + STEP_DEG, STEP_DEG)

    @cached_property
    def _model(self) -> Model:
        return Model(self.experiment, self.conditions, self._grid)

    @cached_property
    def _index(self) -> NDArray[np.int32]:
        two_theta = self.detector.two_theta_deg
        step = np.rint((two_theta - self._grid[0]) / STEP_DEG).astype(np.int32)
        chi = (
            np.degrees(self.detector.geometry.center_array(self.layout.shape, unit="chi_rad")) % 360
        )
        sector = (chi / SECTOR_DEG).astype(np.int32) % np.int32(round(360 / SECTOR_DEG))
        index = sector * np.int32(len(self._grid)) + np.minimum(step, len(self._grid) - 1)
        index[self.detector.gaps] = -1
        return index

    @cached_property
    def _grains(self) -> Floats:
        # (sets of grains, sectors): few grains diffract into each degree of a ring, and a fibre
        # axis that is not quite the beam makes all rings brighter on two sides.
        n = round(360 / SECTOR_DEG)
        run, extras = self.conditions, self.experiment.extras
        sets = [(run.graininess, self._noise((5,), (2, n)))]
        sets += [
            (extra.graininess, self._noise((5, 1 + k), (RING_SETS, n)))
            for k, extra in enumerate(extras)
        ]
        grains = np.concatenate([np.exp(spread * z - spread**2 / 2) for spread, z in sets])
        chi = np.radians((np.arange(n) + 0.5) * SECTOR_DEG - run.azimuth_deg)
        return np.asarray(grains * (1 + run.azimuthal * np.cos(2 * chi)))

    def _noise(self, key: tuple[int, ...], shape: tuple[int, int]) -> Floats:
        sequence = np.random.SeedSequence(self.conditions.seed, spawn_key=key)
        return np.random.default_rng(sequence).standard_normal(shape)

    @cached_property
    def _spots(self) -> Spots:
        return spots(self.detector)

    @cached_property
    def _noisy(self) -> tuple[NDArray[np.int64], Floats]:
        rate = self.detector.extra_counts.ravel()
        pixel = np.flatnonzero(rate)
        return pixel, rate[pixel]

    @cached_property
    def _flux(self) -> Floats:
        seed = np.random.SeedSequence(self.conditions.seed, spawn_key=(6,))
        z = np.random.default_rng(seed).standard_normal(self.conditions.frames)
        return np.exp(self.conditions.flux_noise * z)

    def lines(self, i: int) -> list[tuple[str, Lines]]:
        """Return the lines of frame `i` for each phase present, as (low, high or other, lines)."""
        found = []
        for part in self._model.parts(float(self.fraction[i])):
            shape = self._model.lines(part, float(self.pressure_gpa[i]))
            found.append((part.kind, replace(shape, intensity=part.share * shape.intensity)))
        return found

    @cached_property
    def _smooth(self) -> Model:
        return Model(self.experiment, self.conditions, self.axis)

    def expected(self, i: int) -> Floats:
        """Return the noise-free intensity of frame `i` on `axis`, without the anvils' spots."""
        return self._smooth.intensity(float(self.pressure_gpa[i]), float(self.fraction[i]))

    def _profiles(self, i: int) -> list[tuple[int, Floats]]:
        # Set of grains and mean intensity on the grid, of each phase in frame i.
        pressure = float(self.pressure_gpa[i])
        return [
            (part.grains, self._model.rings(part, pressure))
            for part in self._model.parts(float(self.fraction[i]))
        ]

    def _table(self, i: int) -> NDArray[np.float32]:
        rows, profiles = zip(*self._profiles(i), strict=True)
        grains = self._grains[list(rows)]
        table = self._model.background + np.einsum("ps,pt->st", grains, np.stack(profiles))
        return np.asarray(self._flux[i] * table, dtype=np.float32).ravel()

    def _additions(self, i: int) -> tuple[NDArray[np.int64], Floats]:
        noisy, rate = self._noisy
        bright = self._flux[i] * self._spots.at(float(self.pressure_gpa[i]))
        return np.concatenate((self._spots.pixel, noisy)), np.concatenate((bright, rate))

    def frame(self, i: int) -> NDArray[Any]:
        """Return frame `i`, (height, width) counts of the layout's type."""
        seed = self.conditions.seed
        counts = sample(
            self._index,
            self.detector.weight,
            self._table(i),
            seed=seed,
            frame=i,
            gap=self.layout.gap,
            ceiling=SATURATION,
            dtype=self.layout.dtype,
        )
        pixel, mean = self._additions(i)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7, i)))
        added = rng.poisson(np.minimum(mean, 10 * SATURATION))
        flat = counts.reshape(-1)
        np.add.at(flat, pixel, np.minimum(added, SATURATION).astype(flat.dtype))
        flat[pixel] = np.minimum(flat[pixel], SATURATION)
        return counts

    @cached_property
    def _bins(self) -> tuple[NDArray[np.int64], Floats]:
        # Bin of every pixel (-1: none), and the sum of solid angle x polarisation of every bin.
        lo, hi = self.experiment.two_theta_deg
        position = (self.detector.two_theta_deg.ravel().astype(float) - lo) / (hi - lo)
        valid = (position >= 0) & (position < 1) & ~self.mask.ravel()
        valid &= np.isfinite(self.detector.extra_counts.ravel())
        bins = np.where(valid, (position * N_BINS).astype(np.int64), -1)
        weight = self.detector.normalisation.ravel()[valid]
        total = np.bincount(bins[valid], weights=weight, minlength=N_BINS)
        return bins, total.astype(np.float64)

    @cached_property
    def _projections(self) -> list[csr_array]:
        # (N_BINS, grid) each: of the background, and of the rings of each set of grains, the counts
        # of a bin per unit of intensity at a point of the grid.
        bins, _ = self._bins
        pixel = np.flatnonzero(bins >= 0)
        sector, step = np.divmod(self._index.ravel()[pixel], len(self._grid))
        weight = self.detector.weight.ravel()[pixel].astype(np.float64)
        at, shape = (bins[pixel], step), (N_BINS, len(self._grid))
        return [
            coo_array((weight * bright[sector], at), shape=shape).tocsr()
            for bright in (np.ones(self._grains.shape[1]), *self._grains)
        ]

    def pattern(self, i: int) -> NDArray[np.float32]:
        """Return what integrating frame `i` without pixel splitting gives, (N_BINS,), on `axis`.

        A sum of Poisson counts is a Poisson count, so the bins are drawn at once: alike in
        distribution, but not the very counts of `frame`.
        """
        bins, normalisation = self._bins
        flat, *rings = self._projections
        mean = flat @ self._model.background
        for grains, mean_profile in self._profiles(i):
            mean += rings[grains] @ mean_profile
        mean *= self._flux[i]
        pixel, added = self._additions(i)
        counted = (bins[pixel] >= 0) & (added < SATURATION)
        mean += np.bincount(bins[pixel[counted]], weights=added[counted], minlength=N_BINS)
        seed = np.random.SeedSequence(self.conditions.seed, spawn_key=(8, i))
        return (np.random.default_rng(seed).poisson(mean) / normalisation).astype(np.float32)


def open_run(
    name: str, *, seed: int = 0, frames: int | None = None, layout: str = "lambda2m"
) -> Run:
    """Return run `seed` of the experiment `name`.

    Raises
    ------
    PipelineError
        No such experiment or layout, or a number of frames or a seed that cannot be.
    """
    if name not in EXPERIMENTS:
        raise PipelineError(
            f"experiment {name!r} is not known; there are: {', '.join(EXPERIMENTS)}"
        )
    if layout not in LAYOUTS:
        raise PipelineError(f"layout {layout!r} is not known; there are: {', '.join(LAYOUTS)}")
    if frames is not None and frames < 1:
        raise PipelineError(f"frames = {frames}: a run has at least 1 frame")
    if seed < 0:
        raise PipelineError(f"seed = {seed}: it must not be negative")
    chosen = EXPERIMENTS[name]
    drawn = experiments.conditions(chosen, seed=seed, frames=frames)
    return Run(chosen, drawn, LAYOUTS[layout])
