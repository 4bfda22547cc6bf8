"""Crystalline phases under pressure: equation of state, cell, reflections.

Symbols: P pressure in GPa, V cell volume in A^3, K0 and K0' the bulk modulus (GPa) at zero pressure
and its pressure derivative, d lattice spacing in A, m multiplicity, F structure factor in
electrons, s = 1 / (2 d). A rhombohedral phase is described in its hexagonal axes; its `distortion`
e is the stretch of c/a over that of the undistorted cubic lattice, c/a = (1 + e) sqrt(6).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import ATOMIC_MASS, Floats, debye_b, form_factor

# Element, occupancy, x, y, z.
Site = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class EquationOfState:
    """Isothermal P(V): third-order Birch-Murnaghan or Vinet.

    Birch, Phys. Rev. 71, 809 (1947); Vinet et al., J. Geophys. Res. 92, 9319 (1987).
    """

    form: Literal["birch-murnaghan", "vinet"]
    v0: float
    k0: float
    k0_prime: float

    def pressure(self, volume: float) -> float:
        """Return P in GPa at the cell volume `volume` in A^3."""
        x = (volume / self.v0) ** (1 / 3)
        if self.form == "vinet":
            eta = 1.5 * (self.k0_prime - 1)
            return float(3 * self.k0 * (1 - x) / x**2 * np.exp(eta * (1 - x)))
        shape = 1 + 0.75 * (self.k0_prime - 4) * (x**-2 - 1)
        return float(1.5 * self.k0 * (x**-7 - x**-5) * shape)

    def volume(self, pressure_gpa: float) -> float:
        """Return V in A^3 at `pressure_gpa`, by root finding between 0.3 V0 and 1.05 V0.

        Raises
        ------
        ValueError
            The pressure lies outside that range of volumes.
        """
        from scipy.optimize import brentq

        def excess(volume: float) -> float:
            return self.pressure(volume) - pressure_gpa

        return float(brentq(excess, 0.3 * self.v0, 1.05 * self.v0, xtol=1e-10))


@dataclass(frozen=True)
class Phase:
    """A phase: its space group, the atoms of its conventional cell, and how it compresses.

    `axial_ratio` is (c/a at V_ref, V_ref in A^3, its slope per A^3), for hexagonal axes only.
    """

    name: str
    space_group: str
    axes: Literal["cubic", "hexagonal"]
    sites: tuple[Site, ...]
    eos: EquationOfState
    debye_k: float
    axial_ratio: tuple[float, float, float] = (1.0, 0.0, 0.0)

    @cached_property
    def atoms(self) -> float:
        """Atoms in the conventional cell."""
        return sum(site[1] for site in self.sites)

    @cached_property
    def mass(self) -> float:
        """Mean mass of its atoms in g/mol."""
        return sum(ATOMIC_MASS[site[0]] * site[1] for site in self.sites) / self.atoms


@dataclass(frozen=True)
class Cell:
    """Lattice constants in A and volume in A^3."""

    a: float
    c: float
    volume: float


@dataclass(frozen=True, eq=False)
class Reflections:
    """Allowed reflections, by falling d at zero pressure; `hkl` (n, 3) one per family, else (n,).

    `f2` is |F|^2 with thermal vibration, averaged over the `multiplicity` members of the family.
    `origin` numbers the families without distortion: a line that a distortion splits keeps its one.
    """

    hkl: NDArray[np.int64]
    d: Floats
    multiplicity: NDArray[np.int64]
    f2: Floats
    origin: NDArray[np.int64]


def cell(phase: Phase, pressure_gpa: float, *, distortion: float = 0.0) -> Cell:
    """Return the cell of `phase` at `pressure_gpa`."""
    volume = phase.eos.volume(pressure_gpa)
    if phase.axes == "cubic":
        a = volume ** (1 / 3)
        return Cell(a=a, c=a, volume=volume)
    ratio, v_ref, slope = phase.axial_ratio
    ratio = (ratio + slope * (volume - v_ref)) * (1 + distortion)
    a = (2 * volume / (np.sqrt(3) * ratio)) ** (1 / 3)
    return Cell(a=float(a), c=float(a * ratio), volume=volume)


def spacing(phase: Phase, lattice: Cell, hkl: NDArray[np.int64]) -> Floats:
    """Return d in A of the planes `hkl` (n, 3)."""
    h, k, l = hkl.T.astype(float)  # noqa: E741 (the index is called l)
    in_plane = h * h + k * k if phase.axes == "cubic" else 4 / 3 * (h * h + h * k + k * k)
    return np.asarray(1.0 / np.sqrt(in_plane / lattice.a**2 + l * l / lattice.c**2))


@dataclass(frozen=True, eq=False)
class _Families:
    # What does not change with pressure: `geometry` (n, e, e) is the mean over a family's members
    # of G_i conj(G_j), with G_i = sum over the sites of element i of occupancy x
    # exp(2 pi i (hx + ky + lz)).
    hkl: NDArray[np.int64]
    multiplicity: NDArray[np.int64]
    geometry: Floats
    origin: NDArray[np.int64]


def _elements(phase: Phase) -> list[str]:
    return sorted({site[0] for site in phase.sites})


@lru_cache(maxsize=64)
def _families(phase: Phase, d_min: float) -> _Families:
    lattice = cell(phase, 0.0)
    limit = int(np.ceil(2 * max(lattice.a, lattice.c) / d_min))  # hexagonal h, k reach 2 a / sqrt 3
    axis = np.arange(-limit, limit + 1)
    hkl = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = hkl[np.any(hkl != 0, axis=1)]
    hkl = hkl[spacing(phase, lattice, hkl) >= d_min]
    parts = np.zeros((len(_elements(phase)), len(hkl)), dtype=complex)
    for element, occupancy, *position in phase.sites:
        waves = np.exp(2j * np.pi * (hkl @ np.asarray(position)))
        parts[_elements(phase).index(element)] += occupancy * waves
    allowed = np.abs(parts).max(axis=0) > 1e-6
    hkl, parts = hkl[allowed], parts[:, allowed]
    # Planes of equal d whatever the lattice constants: these integers are the same for all of them.
    h, k, l = hkl.T  # noqa: E741
    cubic = phase.axes == "cubic"
    forms = np.stack((h * h + k * k + l * l, 0 * l) if cubic else (h * h + h * k + k * k, l * l))
    _, family = np.unique(forms, axis=1, return_inverse=True)
    family = family.ravel()
    multiplicity = np.bincount(family)
    products = (parts[:, None] * parts.conj()).real
    geometry = np.array([[np.bincount(family, q) / multiplicity for q in row] for row in products])
    # of a family the member of the smallest, then of the foremost positive indices comes last
    order = np.lexsort((hkl[:, 2], hkl[:, 1], hkl[:, 0], -np.abs(hkl).sum(axis=1), family))
    last = np.append(np.flatnonzero(np.diff(family[order])), len(order) - 1)
    first = hkl[order][last]
    inverse_d2 = np.round(spacing(phase, lattice, first) ** -2, 8)
    by_d = np.argsort(inverse_d2, kind="stable")
    _, origin = np.unique(inverse_d2[by_d], return_inverse=True)
    return _Families(first[by_d], multiplicity[by_d], geometry.T[by_d], origin)


def reflections(
    phase: Phase, pressure_gpa: float, *, d_min: float, distortion: float = 0.0
) -> Reflections:
    """Return the reflections of `phase` with d >= `d_min` (A) at `pressure_gpa`.

    Extinctions follow from the structure factor, |F|^2 = |sum over the cell of occupancy x f
    exp(-B s^2) exp(2 pi i (hx + ky + lz))|^2; planes of equal d are one family.
    """
    families = _families(phase, d_min / (1 + abs(distortion)))
    d = spacing(phase, cell(phase, pressure_gpa, distortion=distortion), families.hkl)
    s = 0.5 / d
    vibration = np.exp(-debye_b(phase.mass, debye_k=phase.debye_k) * s**2)
    f = np.stack([form_factor(element, s) for element in _elements(phase)], axis=1)
    f2 = np.einsum("ni,nij,nj->n", f, families.geometry, f) * vibration**2
    seen = (d >= d_min) & (f2 > 1e-6)
    return Reflections(
        hkl=families.hkl[seen],
        d=d[seen],
        multiplicity=families.multiplicity[seen],
        f2=f2[seen],
        origin=families.origin[seen],
    )
