"""How single atoms scatter X-rays: form factor, thermal vibration, Compton scattering.

Symbols: s = sin(theta) / wavelength in 1/A; f(s) in electrons; E photon energy in keV.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# f(s) = sum_i a_i exp(-b_i s^2) + c, for s < 2 1/A: Cromer and Mann, Acta Cryst. A24, 321 (1968),
# in the values of International Tables for Crystallography C (1992), table 6.1.1.4; b in A^2.
FORM_FACTORS = {
    "C": ((2.3100, 1.0200, 1.5886, 0.8650), (20.8439, 10.2075, 0.5687, 51.6512), 0.2156),
    "N": ((12.2126, 3.1322, 2.0125, 1.1663), (0.0057, 9.8933, 28.9975, 0.5826), -11.529),
    "O": ((3.0485, 2.2868, 1.5463, 0.8670), (13.2771, 5.7011, 0.3239, 32.9089), 0.2508),
    "Ne": ((3.9553, 3.1125, 1.4546, 1.1251), (8.4042, 3.4262, 0.2306, 21.7184), 0.3515),
    "Mg": ((5.4204, 2.1735, 1.2269, 2.3073), (2.8275, 79.2611, 0.3808, 7.1937), 0.8584),
    "Fe": ((11.7695, 7.3573, 3.5222, 2.3045), (4.7611, 0.3072, 15.3535, 76.8805), 1.0369),
    "Re": ((28.7621, 15.7189, 14.5564, 5.44174), (1.67191, 9.09227, 0.3505, 52.0861), 10.472),
    "Pt": ((27.0059, 17.7639, 15.7131, 5.7837), (1.51293, 8.81174, 0.424593, 38.6103), 11.6883),
}

# Incoherent scattering function S(s) = Z - sum_i a_i exp(-b_i s^2): Balyuzi, Acta Cryst. A31, 600
# (1975); b in A^2.
INCOHERENT = {
    "C": (
        (0.7568, 2.5511, 0.7051, 1.4605, 0.5263),
        (82.2385, 31.7282, 11.9471, 1.4637, 0.5150),
    ),
}

ATOMIC_NUMBER = {"C": 6, "N": 7, "O": 8, "Ne": 10, "Mg": 12, "Fe": 26, "Re": 75, "Pt": 78}
# Standard atomic weights in g/mol: Prohaska et al., Pure Appl. Chem. 94, 573 (2022).
ATOMIC_MASS = {
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "Ne": 20.180,
    "Mg": 24.305,
    "Fe": 55.845,
    "Re": 186.21,
    "Pt": 195.08,
}

ELECTRON_REST_ENERGY_KEV = 510.999  # CODATA 2018
KEV_ANGSTROM = 12.398420  # h c, CODATA 2018

# 3 h^2 / (4 pi^2 u k) as it enters B = 8 pi^2 <u_x^2>: 11492 A^2 K g/mol (International Tables for
# X-ray Crystallography II (1959), section 5.2).
DEBYE_CONSTANT = 11492.0


def form_factor(element: str, s: ArrayLike) -> Floats:
    """Return the atomic form factor f(s) in electrons.

    Anomalous scattering is left out: at 25.6 keV, far above the K edge of iron (7.11 keV) and the
    L edges of rhenium and platinum (at most 13.9 keV), it changes f by a few per cent at most, much
    alike for all reflections.
    """
    a, b, c = FORM_FACTORS[element]
    s2 = np.asarray(s, dtype=float)[..., None] ** 2
    return np.sum(np.asarray(a) * np.exp(-np.asarray(b) * s2), axis=-1) + c


def debye_b(mass: float, *, debye_k: float, temperature_k: float = 300.0) -> float:
    """Return the thermal parameter B in A^2 of the Debye model; exp(-B s^2) multiplies f.

    `mass` is the mean mass of the atoms in g/mol.

    B = 11492 T / (M Theta^2) (phi(x) + x / 4), x = Theta / T, phi the Debye integral
    (1 / x) int_0^x y / (e^y - 1) dy. Source: Warren, X-ray Diffraction (1969), section 11.3.
    """
    x = debye_k / temperature_k
    edges = np.linspace(0.0, x, 2001)
    y = 0.5 * (edges[1:] + edges[:-1])
    phi = float(np.sum(y / np.expm1(y)) * (edges[1] - edges[0]) / x)
    scale = DEBYE_CONSTANT * temperature_k / (mass * debye_k**2)
    return scale * (phi + x / 4)


def compton(element: str, s: ArrayLike, *, energy_kev: float) -> Floats:
    """Return the Compton intensity per atom, in electron units, without polarisation.

    I(s) = S(s) (E'/E)^2, with E'/E = 1 / (1 + (E / m c^2)(1 - cos 2theta)): Klein and Nishina,
    Z. Phys. 52, 853 (1929), for photons much softer than m c^2.
    """
    a, b = INCOHERENT[element]
    s2 = np.asarray(s, dtype=float) ** 2
    bound = np.sum(np.asarray(a) * np.exp(-np.asarray(b) * s2[..., None]), axis=-1)
    one_minus_cos = 2.0 * s2 * (KEV_ANGSTROM / energy_kev) ** 2  # = 2 sin^2(theta)
    recoil = 1.0 / (1.0 + energy_kev / ELECTRON_REST_ENERGY_KEV * one_minus_cos)
    return (ATOMIC_NUMBER[element] - bound) * recoil**2
