"""The LAMBDA 2M, in the two layouts in which its frames come, with its faults.

``lambda2m``: one canvas of 1556 x 1556, uint16, 0 in the gaps between chips (pyFAI's Lambda2M).
``p022``: three modules of 516 x 1554, int16, -1 in their gaps, placed by translations and flipped
vertically, as PETRA III P02.2 writes them: canvas 1833 x 1556.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.experiment import Conditions
from phasewatch.calibration.lambda_modules import ModuleLayout

Bools = NDArray[np.bool_]

PIXEL_M = 55e-6
SATURATION = 4095  # 12 bit counter
POLARIZATION = 0.99  # of P02.2's undulator beam; pyFAI's polarization factor
N_BINS = 4023

# From the files of P02.2: (x, y, z) of the modules in pixels, their shape, and their gap columns.
TRANSLATIONS = ((0.0, 0.0, 0.0), (-2.0, 660.0, 0.0), (-2.0, 1317.0, 0.0))
MODULE_SHAPE = (516, 1554)
MODULE_GAP = slice(772, 782)
P022_MODULES = ModuleLayout.from_translations(TRANSLATIONS, [MODULE_SHAPE] * len(TRANSLATIONS))
# Pixels interpolated over the edges of chips (bit 31 of the pixel mask): they count.
VIRTUAL_COLUMNS = ((255, 261), (515, 521), (1033, 1039), (1293, 1299))
VIRTUAL_ROWS = (255, 261)

# Bits of the NeXus pixel mask (NXdetector).
GAP_BIT, DEAD_BIT, NOISY_BIT, VIRTUAL_BIT = 1 << 0, 1 << 1, 1 << 4, 1 << 31

# One detector for all runs: faults as in the masks of the P02.2 files, but for the noisy pixels,
# of which those have up to 1 %.
DETECTOR_SEED = 105_104_103
DEAD_SHARE, NOISY_SHARE, STUCK_SHARE = 6e-4, 1.5e-3, 5e-5
NOISY_COUNTS = (2.0, 200.0)
SENSITIVITY_SPREAD = 0.01
# Faults newer than the mask, other ones in each run.
NEW_NOISY, NEW_STUCK, NEW_NOISY_COUNTS = 25, 10, (1.0, 8.0)


@dataclass(frozen=True)
class Layout:
    """Where the pixels are: canvas, type of the counts, what gaps hold, nominal geometry in m."""

    name: Literal["lambda2m", "p022"]
    shape: tuple[int, int]
    dtype: str
    gap: int
    poni_m: tuple[float, float, float]  # distance, PONI 1, PONI 2
    rotation_rad: tuple[float, float]


# The beam passes beside the detector, which so covers two theta from 9.6 to 25.9 deg.
LAYOUTS = {
    "lambda2m": Layout("lambda2m", (1556, 1556), "uint16", 0, (0.3092, 0.0300, 0.1379), (0.0, 0.0)),
    # As calibrated in the file L2.poni that comes with the P02.2 frames.
    "p022": Layout(
        "p022",
        P022_MODULES.canvas_shape,
        "int16",
        -1,
        (0.309192, 0.038538, 0.140671),
        (0.007192, 0.001452),
    ),
}


def modules(frame: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Cut a P02.2 canvas (1833, 1556) into its modules (516, 1554), as they are stored; views."""
    upright = frame[::-1]
    height, width = MODULE_SHAPE
    return tuple(upright[y : y + height, x : x + width] for y, x in P022_MODULES.origins)


def gaps(layout: Layout) -> Bools:
    """Return where `layout` has no pixel, (height, width)."""
    if layout.name == "lambda2m":
        from pyFAI.detectors import detector_factory

        return np.asarray(detector_factory("Lambda2M").calc_mask(), dtype=bool)
    gap = np.ones(layout.shape, dtype=bool)
    for module in modules(gap):  # views
        module[...] = False
        module[..., MODULE_GAP] = True
    return gap


@dataclass(frozen=True, eq=False)
class Detector:
    """The detector as it stands in one run."""

    layout: Layout
    conditions: Conditions
    wavelength_m: float

    @property
    def poni(self) -> dict[str, float]:
        """Geometry of the run in pyFAI's words, m and rad."""
        distance, poni1, poni2 = np.add(self.layout.poni_m, self.conditions.poni_shift_m).tolist()
        rot1, rot2 = self.layout.rotation_rad
        return {"dist": distance, "poni1": poni1, "poni2": poni2, "rot1": rot1, "rot2": rot2}

    @cached_property
    def geometry(self) -> Any:
        """The run's geometry as a pyFAI ``Geometry``."""
        from pyFAI.detectors import Detector as PyfaiDetector
        from pyFAI.geometry import Geometry

        grid = PyfaiDetector(PIXEL_M, PIXEL_M, max_shape=self.layout.shape)
        return Geometry(**self.poni, detector=grid, wavelength=self.wavelength_m)

    @cached_property
    def two_theta_deg(self) -> NDArray[np.float32]:
        """Scattering angle of every pixel (height, width)."""
        angles = self.geometry.center_array(self.layout.shape, unit="2th_deg")
        return np.asarray(angles, dtype=np.float32)

    @cached_property
    def normalisation(self) -> NDArray[np.float32]:
        """Solid angle x polarisation of every pixel, which the integrator takes away again."""
        shape = self.layout.shape
        polarization = self.geometry.polarization(shape, factor=POLARIZATION)
        return np.asarray(self.geometry.solidAngleArray(shape) * polarization, dtype=np.float32)

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """`normalisation` x sensitivity of every pixel; dead pixels have none."""
        rng = np.random.default_rng(np.random.SeedSequence(DETECTOR_SEED, spawn_key=(1,)))
        sensitivity = rng.standard_normal(self.layout.shape, dtype=np.float32)
        weight = self.normalisation * (1 + np.float32(SENSITIVITY_SPREAD) * sensitivity)
        weight[self.faults[0]] = 0
        return weight

    @cached_property
    def gaps(self) -> Bools:
        """Where there is no pixel."""
        return gaps(self.layout)

    @cached_property
    def faults(self) -> tuple[Bools, Floats]:
        """Dead pixels, and mean counts of the noisy (infinite: stuck) ones, known to the mask."""
        rng = np.random.default_rng(DETECTOR_SEED)
        u = rng.random(self.layout.shape, dtype=np.float32)
        rate = np.zeros(self.layout.shape)
        noisy = (u > DEAD_SHARE) & (u < DEAD_SHARE + NOISY_SHARE)
        low, high = np.log(NOISY_COUNTS)
        rate[noisy] = np.exp(rng.uniform(low, high, size=int(noisy.sum())))
        rate[u > 1 - STUCK_SHARE] = np.inf
        rate[self.gaps] = 0
        return (u < DEAD_SHARE) & ~self.gaps, rate

    @cached_property
    def extra_counts(self) -> Floats:
        """Mean counts a pixel adds of its own, known to the mask or not (infinite: stuck)."""
        rng = np.random.default_rng(np.random.SeedSequence(self.conditions.seed, spawn_key=(3,)))
        rate = self.faults[1].copy()
        new = rng.choice(np.flatnonzero(~self.mask), NEW_NOISY + NEW_STUCK, replace=False)
        rate.ravel()[new[:NEW_NOISY]] = rng.uniform(*NEW_NOISY_COUNTS, size=NEW_NOISY)
        rate.ravel()[new[NEW_NOISY:]] = np.inf
        return rate

    @cached_property
    def mask(self) -> Bools:
        """What is known to be invalid: gaps, dead and noisy pixels; true = invalid."""
        dead, rate = self.faults
        return self.gaps | dead | (rate > 0)

    def pixel_mask(self) -> tuple[NDArray[np.uint32], ...]:
        """Return the NeXus pixel mask of each P02.2 module."""
        dead, rate = self.faults
        bits = self.gaps * np.uint32(GAP_BIT)
        bits += dead * np.uint32(DEAD_BIT) + (rate > 0) * np.uint32(NOISY_BIT)
        masks = tuple(np.ascontiguousarray(module) for module in modules(bits))
        for mask in masks:
            mask[slice(*VIRTUAL_ROWS)] |= np.uint32(VIRTUAL_BIT)
            for columns in VIRTUAL_COLUMNS:
                mask[:, slice(*columns)] |= np.uint32(VIRTUAL_BIT)
        return masks
