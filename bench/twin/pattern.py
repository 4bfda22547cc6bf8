"""The mean diffracted intensity of a run, I(two theta), per unit of solid angle.

Polarisation and solid angle are left out: they belong to the pixels (`detector`), and the
integrator takes them away again. Symbols: theta the Bragg angle, m multiplicity, F structure
factor, V cell volume, x fraction of atoms in the high-pressure phase.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phasewatch.bench.twin.atoms import KEV_ANGSTROM, Floats, compton, form_factor
from phasewatch.bench.twin.crystal import Phase, cell, reflections
from phasewatch.bench.twin.experiment import Conditions, Experiment, distortion

# Width of a line that an unstrained sample would show: beam and sample (about 20 um), one pixel
# (55 um) and the detector's point spread, at 0.31 m.
INSTRUMENT_FWHM_DEG = 0.03
LORENTZ_SHARE = 0.5  # of the pseudo-Voigt
RING_SETS = 3
NOTHING = 1e-6  # a phase of a smaller share is not there


@dataclass(frozen=True, eq=False)
class Lines:
    """Diffraction lines: position and width (FWHM) in degrees, intensity; all (n,)."""

    two_theta_deg: Floats
    fwhm_deg: Floats
    intensity: Floats


def lines(
    phase: Phase,
    pressure_gpa: float,
    *,
    wavelength_a: float,
    two_theta_max_deg: float,
    microstrain: float = 0.0,
    uniaxial_strain: float = 0.0,
    stretch: float = 0.0,
    weights: Floats | None = None,
) -> Lines:
    """Return the powder lines of `phase`, for equal numbers of atoms comparable between phases.

    Intensity per atom and unit of solid angle: m |F|^2 / (n V sin(theta) sin(2 theta)), n atoms in
    the cell: 1 / sin(theta) is the Lorentz factor of a powder, 1 / sin(2 theta) spreads the cone
    over its circumference (Warren, X-ray Diffraction (1969), section 4.3). Width: the instrument's
    and 2 tan(theta) x microstrain, in quadrature. A sample stressed along the beam shows
    d (1 + Q (1 - 3 sin^2 theta)): Singh et al., J. Appl. Phys. 83, 7567 (1998). `stretch` is the
    distortion, `weights` are factors of the intensity by `Reflections.origin`.
    """
    d_min = 0.98 * wavelength_a / (2 * np.sin(np.radians(two_theta_max_deg) / 2))
    found = reflections(phase, pressure_gpa, d_min=d_min, distortion=stretch)
    sin2 = (wavelength_a / (2 * found.d)) ** 2
    d = found.d * (1 + uniaxial_strain * (1 - 3 * sin2))
    theta = np.arcsin(wavelength_a / (2 * d))
    volume = cell(phase, pressure_gpa).volume
    lorentz = 1 / (np.sin(theta) * np.sin(2 * theta))
    strain_deg = np.degrees(2 * np.tan(theta) * microstrain)
    intensity = found.multiplicity * found.f2 / (phase.atoms * volume) * lorentz
    return Lines(
        two_theta_deg=np.degrees(2 * theta),
        fwhm_deg=np.hypot(INSTRUMENT_FWHM_DEG, strain_deg),
        intensity=intensity if weights is None else intensity * weights[found.origin],
    )


def profile(two_theta_deg: Floats, shape: Lines) -> Floats:
    """Return the sum of the pseudo-Voigt lines at `two_theta_deg` (n,), each of unit area per deg.

    Thompson, Cox and Hastings, J. Appl. Cryst. 20, 79 (1987), with the Lorentz share fixed.
    """
    u = (two_theta_deg[:, None] - shape.two_theta_deg) / (shape.fwhm_deg / 2)
    lorentz = 1 / (np.pi * (1 + u * u))
    gauss = np.sqrt(np.log(2) / np.pi) * np.exp(-np.log(2) * u * u)
    height = shape.intensity / (shape.fwhm_deg / 2)
    return np.asarray((LORENTZ_SHARE * lorentz + (1 - LORENTZ_SHARE) * gauss) @ height)


def background(two_theta_deg: Floats, *, wavelength_a: float, air_share: float) -> Floats:
    """Return the smooth background, with mean 1 over `two_theta_deg`.

    Compton scattering of the anvils' carbon and the coherent scattering of single nitrogen atoms of
    the air, f^2, in the shares 1 - `air_share` and `air_share` in the middle of the range.
    """
    s = np.sin(np.radians(two_theta_deg) / 2) / wavelength_a
    parts = compton("C", s, energy_kev=KEV_ANGSTROM / wavelength_a), form_factor("N", s) ** 2
    middle = len(s) // 2
    total = (1 - air_share) * parts[0] / parts[0][middle] + air_share * parts[1] / parts[1][middle]
    return np.asarray(total / total.mean())


@dataclass(frozen=True, eq=False)
class Part:
    """Lines of one phase in the beam: `kind` is low, high or other.

    `share` is what they are multiplied by, `weights` (64,) what each is, by `Reflections.origin`.
    `grains` numbers the sets of grains that diffract into them; a phase that a distortion makes of
    another has the same grains.
    """

    kind: str
    phase: Phase
    share: float
    grains: int
    weights: Floats


@dataclass(frozen=True, eq=False)
class Model:
    """Mean intensity of one run on `two_theta_deg` (n,), in counts per pixel of unit solid angle.

    What does not change in a run is computed once.
    """

    experiment: Experiment
    conditions: Conditions
    two_theta_deg: Floats

    @cached_property
    def background(self) -> Floats:
        """Smooth background (n,)."""
        return self.conditions.counts_per_pixel * background(
            self.two_theta_deg,
            wavelength_a=self.experiment.wavelength_m * 1e10,
            air_share=self.conditions.air_share,
        )

    def parts(self, fraction: float) -> list[Part]:
        """Return what is in the beam when `fraction` of the sample is in the high phase.

        The rings of the extras, whose grains are few, are three parts each: spots of one ring lie
        elsewhere than those of the next.
        """
        low, high = self.experiment.low, self.experiment.high
        grains = 0 if self.experiment.displacive else 1
        found = [
            Part("low", low, 1 - fraction, 0, self._textures[low.name]),
            Part("high", high, fraction, grains, self._textures[high.name]),
        ]
        for extra, share in zip(self.experiment.extras, self._extra_shares, strict=True):
            texture = self._textures[extra.phase.name]
            for k in range(RING_SETS):
                own = np.arange(len(texture)) % RING_SETS == k
                found.append(Part("other", extra.phase, share, len(found), own * texture))
        return [part for part in found if part.share > NOTHING]

    def rings(self, part: Part, pressure_gpa: float) -> Floats:
        """Return the intensity (n,) of the lines of `part`."""
        shape = self.lines(part, pressure_gpa)
        return part.share * self._scale * profile(self.two_theta_deg, shape)

    def intensity(self, pressure_gpa: float, fraction: float) -> Floats:
        """Return background and lines (n,) of the mixture of fraction `fraction`."""
        rings = [self.rings(part, pressure_gpa) for part in self.parts(fraction)]
        return np.asarray(self.background + sum(rings))

    def lines(self, part: Part, pressure_gpa: float) -> Lines:
        """Return the lines of `part` as if its share were 1, in arbitrary units."""
        shape = self._lines(part.phase, pressure_gpa, part.weights)
        keep = shape.intensity > 0
        return Lines(shape.two_theta_deg[keep], shape.fwhm_deg[keep], shape.intensity[keep])

    def _lines(self, phase: Phase, pressure_gpa: float, weights: Floats) -> Lines:
        run = self.conditions
        return lines(
            phase,
            pressure_gpa,
            wavelength_a=self.experiment.wavelength_m * 1e10,
            two_theta_max_deg=float(self.two_theta_deg[-1]),
            microstrain=run.microstrain + run.microstrain_per_gpa * pressure_gpa,
            uniaxial_strain=run.uniaxial_strain * pressure_gpa / 10,
            stretch=distortion(self.experiment, run, phase, pressure_gpa),
            weights=weights,
        )

    @cached_property
    def _start(self) -> Floats:
        return self._at_start(self.experiment.low)

    def _at_start(self, phase: Phase) -> Floats:
        start_gpa, weights = self.conditions.start_gpa, self._textures[phase.name]
        return profile(self.two_theta_deg, self._lines(phase, start_gpa, weights))

    @cached_property
    def _scale(self) -> float:
        top = int(np.argmax(self._start))
        return float(self.conditions.peak_to_background * self.background[top] / self._start[top])

    @cached_property
    def _extra_shares(self) -> list[float]:
        return [
            height * float(self._start.max() / self._at_start(extra.phase).max())
            for extra, height in zip(self.experiment.extras, self.conditions.heights, strict=True)
        ]

    @cached_property
    def _textures(self) -> dict[str, Floats]:
        # One factor per line, by falling d, for the whole run: preferred orientation of a sample
        # whose fibre axis is the beam changes the lines, not the evenness of the rings.
        experiment = self.experiment
        low, high = self._spread((1,), 2)
        extras = self._spread((1, 1), len(experiment.extras))
        factors = {extra.phase.name: f for extra, f in zip(experiment.extras, extras, strict=True)}
        return factors | {
            experiment.low.name: low,
            experiment.high.name: low if experiment.displacive else high,
        }

    def _spread(self, key: tuple[int, ...], n: int) -> Floats:
        sequence = np.random.SeedSequence(self.conditions.seed, spawn_key=key)
        z = np.random.default_rng(sequence).standard_normal((n, 64))
        spread = self.conditions.texture
        return np.asarray(np.exp(spread * z - spread**2 / 2))
