"""Crystalline phases under pressure: equation of state, cell, reflections.

Symbols: P pressure in GPa, V cell volume in A^3, K0 and K0' the bulk modulus (GPa) at zero pressure
and its pressure derivative, d lattice spacing in A, m multiplicity, F structure factor in
electrons, s = 1 / (2 d).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats, debye_b, form_factor

Site = tuple[str, float, float, float]


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
        """Return V in A^3 at `pressure_gpa`, by root finding between 0.5 V0 and 1.05 V0.

        Raises
        ------
        ValueError
            The pressure lies outside that range of volumes.
        """
        from scipy.optimize import brentq

        def excess(volume: float) -> float:
            return self.pressure(volume) - pressure_gpa

        return float(brentq(excess, 0.5 * self.v0, 1.05 * self.v0, xtol=1e-10))


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


@dataclass(frozen=True)
class Cell:
    """Lattice constants in A and volume in A^3."""

    a: float
    c: float
    volume: float


@dataclass(frozen=True, eq=False)
class Reflections:
    """Allowed reflections, by falling d: all (n,), `hkl` (n, 3) one of each family.

    `f2` is |F|^2 with thermal vibration, averaged over the `multiplicity` members of the family.
    """

    hkl: NDArray[np.int64]
    d: Floats
    multiplicity: NDArray[np.int64]
    f2: Floats


def cell(phase: Phase, pressure_gpa: float) -> Cell:
    """Return the cell of `phase` at `pressure_gpa`."""
    volume = phase.eos.volume(pressure_gpa)
    if phase.axes == "cubic":
        a = volume ** (1 / 3)
        return Cell(a=a, c=a, volume=volume)
    ratio, v_ref, slope = phase.axial_ratio
    ratio = ratio + slope * (volume - v_ref)
    a = (2 * volume / (np.sqrt(3) * ratio)) ** (1 / 3)
    return Cell(a=float(a), c=float(a * ratio), volume=volume)


def spacing(phase: Phase, lattice: Cell, hkl: NDArray[np.int64]) -> Floats:
    """Return d in A of the planes `hkl` (n, 3)."""
    h, k, l = hkl.T.astype(float)  # noqa: E741 (the index is called l)
    in_plane = h * h + k * k if phase.axes == "cubic" else 4 / 3 * (h * h + h * k + k * k)
    return np.asarray(1.0 / np.sqrt(in_plane / lattice.a**2 + l * l / lattice.c**2))


def structure_factor(phase: Phase, hkl: NDArray[np.int64], d: Floats) -> NDArray[np.complex128]:
    """Return F(hkl) in electrons: sum over the cell of f exp(-B s^2) exp(2 pi i (hx + ky + lz))."""
    s = 0.5 / d
    total = np.zeros(len(hkl), dtype=complex)
    for element in {site[0] for site in phase.sites}:
        amplitude = form_factor(element, s) * np.exp(
            -debye_b(element, debye_k=phase.debye_k) * s**2
        )
        for _, *position in (site for site in phase.sites if site[0] == element):
            total += amplitude * np.exp(2j * np.pi * (hkl @ np.asarray(position)))
    return total


def reflections(phase: Phase, pressure_gpa: float, *, d_min: float) -> Reflections:
    """Return the reflections of `phase` with d >= `d_min` (A) at `pressure_gpa`.

    Extinctions follow from the structure factor; planes of equal d are one family.
    """
    lattice = cell(phase, pressure_gpa)
    limit = int(np.ceil(2 * max(lattice.a, lattice.c) / d_min))  # hexagonal h, k reach 2 a / sqrt 3
    axis = np.arange(-limit, limit + 1)
    hkl = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    hkl = hkl[np.any(hkl != 0, axis=1)]
    d = spacing(phase, lattice, hkl)
    hkl, d = hkl[d >= d_min], d[d >= d_min]
    f2 = np.abs(structure_factor(phase, hkl, d)) ** 2
    allowed = f2 > 1e-6
    hkl, d, f2 = hkl[allowed], d[allowed], f2[allowed]
    _, family = np.unique(np.round(1 / d**2, 8), return_inverse=True)
    # of a family the member of the smallest, then of the foremost positive indices comes last
    order = np.lexsort((hkl[:, 2], hkl[:, 1], hkl[:, 0], -np.abs(hkl).sum(axis=1), family))
    last = np.append(np.flatnonzero(np.diff(family[order])), len(order) - 1)
    multiplicity = np.bincount(family)
    return Reflections(
        hkl=hkl[order][last],
        d=d[order][last],
        multiplicity=multiplicity,
        f2=np.bincount(family, weights=f2) / multiplicity,
    )
