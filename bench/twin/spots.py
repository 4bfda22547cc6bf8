"""Single-crystal spots of the two anvils.

A monochromatic beam meets few diamond reflections at their Bragg angle, those brightly. They stay
where they are, and flicker a little as the anvils yield under load.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.crystal import reflections
from phasewatch.bench.twin.detector import Detector
from phasewatch.bench.twin.phases import DIAMOND

N_SPOTS = 6
RADIUS_PX = 12
SIGMA_PX = (1.0, 2.5)
PEAK_COUNTS = (10.0, 6000.0)  # the brightest saturate
# What a scientist masks by hand: spots brighter than this, as far out as they can be seen.
MASKED_ABOVE, SEEN_ABOVE = 30.0, 0.1
TILT_DEG = 0.15  # strain and mosaic of the anvils: how far off its ring a spot may lie


@dataclass(frozen=True, eq=False)
class Spots:
    """Pixels of all spots: flat index, mean counts, and the spot each belongs to; all (n,)."""

    pixel: NDArray[np.int64]
    counts: Floats
    spot: NDArray[np.int64]
    phase_rad: Floats  # of the flicker, (N_SPOTS,)

    def at(self, pressure_gpa: float) -> Floats:
        """Return the mean counts (n,) at `pressure_gpa`."""
        flicker = 1 + 0.5 * np.sin(pressure_gpa + self.phase_rad)
        return self.counts * flicker[self.spot]

    def masked(self) -> NDArray[np.int64]:
        """Return the pixels (flat index) that are masked by hand."""
        brightest = np.zeros(N_SPOTS)
        np.maximum.at(brightest, self.spot, self.counts)
        return self.pixel[(brightest[self.spot] > MASKED_ABOVE) & (self.counts > SEEN_ABOVE)]


def spots(detector: Detector) -> Spots:
    """Draw the spots of one run: each on a diamond ring, at an azimuth that the detector covers."""
    rng = np.random.default_rng(np.random.SeedSequence(detector.conditions.seed, spawn_key=(4,)))
    two_theta = detector.two_theta_deg
    wavelength_a = detector.wavelength_m * 1e10
    lines = reflections(DIAMOND, 0.0, d_min=wavelength_a / (2 * np.sin(np.radians(12.5))))
    rings = np.degrees(2 * np.arcsin(wavelength_a / (2 * lines.d)))
    height, width = detector.layout.shape
    pixel, counts, owner = [], [], []
    for k in range(N_SPOTS):
        ring = rng.choice(rings) + rng.uniform(-TILT_DEG, TILT_DEG)
        near = np.flatnonzero((np.abs(two_theta - ring) < 0.01) & ~detector.gaps)
        y, x = np.divmod(int(rng.choice(near)), width)
        rows = np.arange(max(0, y - RADIUS_PX), min(height, y + RADIUS_PX + 1))
        columns = np.arange(max(0, x - RADIUS_PX), min(width, x + RADIUS_PX + 1))
        sigma = rng.uniform(*SIGMA_PX)
        r2 = (rows[:, None] - y) ** 2 + (columns - x) ** 2
        mean = np.exp(rng.uniform(*np.log(PEAK_COUNTS)) - r2 / (2 * sigma**2))
        pixel.append((rows[:, None] * width + columns).ravel())
        counts.append(mean.ravel())
        owner.append(np.full(mean.size, k))
    index = np.concatenate(pixel)
    on_pixels = ~detector.gaps.ravel()[index]
    return Spots(
        pixel=index[on_pixels],
        counts=(np.concatenate(counts) * detector.weight.ravel()[index])[on_pixels],
        spot=np.concatenate(owner)[on_pixels],
        phase_rad=rng.uniform(0, 2 * np.pi, N_SPOTS),
    )
