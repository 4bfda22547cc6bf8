"""What is done to the sample: an experiment, and the conditions of one of its runs.

An `Experiment` gives the range from which each condition is drawn; `conditions` draws one run from
a seed, so that a model can be trained on one run and judged on another. x is the fraction of atoms
in the high-pressure phase.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.crystal import Phase

Range = tuple[float, float]

CLASSES = ("before", "during", "after")
# A frame is `before` while x < 1 %, `after` when x > 99 %, `during` in between.
BEFORE_BELOW, AFTER_ABOVE = 0.01, 0.99
LOGIT_AFTER = np.log(AFTER_ABOVE / BEFORE_BELOW)


@dataclass(frozen=True)
class Extra:
    """Another phase in the beam: calibrant, pressure medium, gasket.

    `height` is the range of the height of its strongest line over that of the sample, at the start;
    `graininess` as in `Conditions`.
    """

    phase: Phase
    role: str
    height: Range
    graininess: float


@dataclass(frozen=True)
class Experiment:
    """A transition from `low` to `high`, and the range of every condition of a run.

    Of the `counts` of patterns before, during and after the transition a run may have a few more or
    less. `printed` is what is printed about the real experiment.
    """

    name: str
    title: str
    counts: tuple[int, int, int]
    low: Phase
    high: Phase
    wavelength_m: float
    two_theta_deg: Range
    start_gpa: Range
    end_gpa: Range
    rate_gpa_s: Range
    onset_gpa: Range
    width_gpa: Range
    hysteresis_gpa: Range
    counts_per_pixel: Range
    peak_to_background: Range
    air_share: Range
    microstrain: Range
    microstrain_per_gpa: Range
    uniaxial_strain: Range
    texture: Range
    graininess: Range
    flux_noise: Range
    poni_shift_m: float
    poni_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    curvature: Range = (-0.15, 0.15)
    distortion_per_gpa: Range = (0.0, 0.0)
    azimuthal: Range = (0.0, 0.0)
    extras: tuple[Extra, ...] = ()
    printed: str = ""

    @property
    def frames(self) -> int:
        """Number of patterns."""
        return sum(self.counts)

    @property
    def displacive(self) -> bool:
        """Whether `high` is a distortion of `low`, which grows from zero."""
        return self.distortion_per_gpa[1] > 0


@dataclass(frozen=True)
class Conditions:
    """One run, as drawn; what a name ends in is its unit, what ends in none is a ratio.

    Attributes
    ----------
    onset_gpa, width_gpa
        On compression x passes 1 % at `onset_gpa` and 99 % at `onset_gpa + width_gpa`.
    hysteresis_gpa
        On decompression both lie lower by this much.
    curvature
        Departure of the ramp from a straight line, at its middle: 4 x this share of its height.
    counts_per_pixel
        Mean count of the smooth background per pixel and frame.
    peak_to_background
        Height of the strongest line of the low phase at the start, over the background there.
    air_share
        Share of air in the background, in the middle of the two theta range; the rest is Compton
        scattering from the anvils.
    microstrain, microstrain_per_gpa
        Relative spread of d (full width at half maximum), at 0 GPa and per GPa.
    uniaxial_strain
        Lattice strain Q of a uniaxially stressed sample at 10 GPa, see `pattern.lines`.
    texture, graininess
        Relative spread of the line intensities, and of the intensity around a ring.
    flux_noise
        Relative spread of the flux from frame to frame.
    poni_shift_m
        Shift of distance, PONI 1 and PONI 2 against the nominal geometry (known by calibration).
    distortion_per_gpa
        How fast c/a of a rhombohedral phase grows with pressure, from the onset on (relative).
    azimuthal
        Relative amplitude with which the intensity varies twice around every ring.
    azimuth_deg
        Where around the ring that is brightest.
    heights
        Of the strongest line of each of the experiment's `extras`, over the sample's.
    """

    seed: int
    frames: int
    exposure_s: float
    start_gpa: float
    end_gpa: float
    rate_gpa_s: float
    curvature: float
    onset_gpa: float
    width_gpa: float
    hysteresis_gpa: float
    counts_per_pixel: float
    peak_to_background: float
    air_share: float
    microstrain: float
    microstrain_per_gpa: float
    uniaxial_strain: float
    texture: float
    graininess: float
    flux_noise: float
    poni_shift_m: tuple[float, float, float]
    distortion_per_gpa: float = 0.0
    azimuthal: float = 0.0
    azimuth_deg: float = 0.0
    heights: tuple[float, ...] = ()


_DRAWN = (
    "start_gpa",
    "end_gpa",
    "onset_gpa",
    "width_gpa",
    "hysteresis_gpa",
    "peak_to_background",
    "air_share",
    "microstrain",
    "microstrain_per_gpa",
    "uniaxial_strain",
    "texture",
    "graininess",
    "flux_noise",
)
_DRAWN_LOGARITHMICALLY = ("rate_gpa_s", "counts_per_pixel")


def conditions(experiment: Experiment, *, seed: int, frames: int | None = None) -> Conditions:
    """Draw the conditions of run `seed`, evenly from the ranges of `experiment`.

    `frames` other than the experiment's changes the exposure, not the ramp. Runs of one seed are
    drawn alike in all experiments, so runs of two experiments need two seeds to be independent.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    drawn = {name: float(rng.uniform(*getattr(experiment, name))) for name in _DRAWN}
    for name in _DRAWN_LOGARITHMICALLY:
        drawn[name] = float(np.exp(rng.uniform(*np.log(getattr(experiment, name)))))
    n = experiment.frames if frames is None else frames
    curvature = float(rng.uniform(*experiment.curvature))
    shift = rng.uniform(-experiment.poni_shift_m, experiment.poni_shift_m, size=3)
    shift += experiment.poni_offset_m
    more = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(9,)))
    duration_s = (drawn["end_gpa"] - drawn["start_gpa"]) / drawn["rate_gpa_s"]
    return Conditions(
        seed=seed,
        frames=n,
        exposure_s=duration_s / n,
        curvature=curvature,
        poni_shift_m=(float(shift[0]), float(shift[1]), float(shift[2])),
        distortion_per_gpa=float(more.uniform(*experiment.distortion_per_gpa)),
        azimuthal=float(more.uniform(*experiment.azimuthal)),
        azimuth_deg=float(more.uniform(0, 180)),
        heights=tuple(float(more.uniform(*extra.height)) for extra in experiment.extras),
        **drawn,
    )


def pressures(run: Conditions) -> Floats:
    """Return the pressure of every frame in GPa, (frames,), at the middle of its exposure."""
    u = (np.arange(run.frames) + 0.5) / run.frames
    return run.start_gpa + (run.end_gpa - run.start_gpa) * (u + run.curvature * 4 * u * (1 - u))


def fractions(run: Conditions, pressure_gpa: Floats) -> Floats:
    """Return x (n,) along the history `pressure_gpa` (n,).

    Compression and decompression each have a logistic curve, lower by the hysteresis; between the
    two x stays what it was: x_i = min(max(x_i-1, up(P_i)), down(P_i)).
    """

    def curve(pressure: Floats, onset: float) -> Floats:
        u = np.clip((pressure - onset) / run.width_gpa, -20, 20)
        return np.asarray(1 / (1 + np.exp(-LOGIT_AFTER * (2 * u - 1))))

    up = curve(pressure_gpa, run.onset_gpa)
    down = curve(pressure_gpa, run.onset_gpa - run.hysteresis_gpa)
    x = np.empty_like(up)
    now = up[0] if len(up) else 0.0
    for i in range(len(up)):
        now = x[i] = min(max(now, up[i]), down[i])
    return x


def distortion(experiment: Experiment, run: Conditions, phase: Phase, pressure_gpa: float) -> float:
    """Return the distortion of `phase` (see `crystal`), which grows from zero at the onset."""
    if not experiment.displacive or phase != experiment.high:
        return 0.0
    return run.distortion_per_gpa * max(0.0, pressure_gpa - run.onset_gpa)


def labels(fraction: Floats) -> NDArray[np.int64]:
    """Return the true class (n,) of every frame, as an index of `CLASSES`."""
    return np.where(fraction < BEFORE_BELOW, 0, np.where(fraction > AFTER_ABOVE, 2, 1))
