"""The phases the twin knows, with the source of every constant beside it."""

import math

from phasewatch.bench.twin.crystal import EquationOfState, Phase, Site


def _fcc(element: str, at: float = 0.0, *, occupancy: float = 1.0) -> tuple[Site, ...]:
    corners = ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
    return tuple((element, occupancy, x + at, y + at, z + at) for x, y, z in corners)


def _hcp(element: str) -> tuple[Site, ...]:
    return ((element, 1.0, 1 / 3, 2 / 3, 0.25), (element, 1.0, 2 / 3, 1 / 3, 0.75))


def _trigonal(element: str, z: float, *, occupancy: float = 1.0) -> tuple[Site, ...]:
    # Obverse setting of R-3m in hexagonal axes: International Tables A, group 166.
    centring = ((0, 0, 0), (2 / 3, 1 / 3, 1 / 3), (1 / 3, 2 / 3, 2 / 3))
    return tuple((element, occupancy, x, y, w + z) for x, y, w in centring)


def _rock_salt(name: str, metals: dict[str, float], eos: EquationOfState, debye_k: float) -> Phase:
    """Return the B1 phase: `metals` share one site, oxygen has the other."""
    sites = tuple(site for m, share in metals.items() for site in _fcc(m, occupancy=share))
    return Phase(name, "Fm-3m", "cubic", sites + _fcc("O", 0.5), eos, debye_k)


def _distorted(name: str, metals: dict[str, float], b1: Phase) -> Phase:
    """Return the rhombohedral phase rB1: B1 stretched along one body diagonal.

    In hexagonal axes its cell has 3/4 of the volume of the cubic cell, and c/a = sqrt(6) without
    distortion. The transition is displacive (Shu et al., N. Jb. Miner. Abh. 172, 309 (1998)); it is
    taken to have no jump in volume, so the equation of state is that of B1.
    """
    sites = tuple(site for m, share in metals.items() for site in _trigonal(m, 0, occupancy=share))
    eos = EquationOfState(b1.eos.form, 0.75 * b1.eos.v0, b1.eos.k0, b1.eos.k0_prime)
    return Phase(
        name,
        "R-3m",
        "hexagonal",
        sites + _trigonal("O", 0.5),
        eos,
        b1.debye_k,
        axial_ratio=(math.sqrt(6), eos.v0, 0.0),
    )


ALPHA_IRON = Phase(
    name="bcc",
    space_group="Im-3m",
    axes="cubic",
    sites=(("Fe", 1.0, 0.0, 0.0, 0.0), ("Fe", 1.0, 0.5, 0.5, 0.5)),
    # V0 = a0^3, a0 = 2.8664 A: Swanson et al., NBS Circular 539 IV (1955), JCPDS 6-0696.
    # K0, K0': Shen and Smith, Phys. Rev. B 113, 144113 (2026), to 15.5 GPa; Wilburn and Bassett,
    # American Mineralogist 63, 591 (1978), have 162.5 GPa and 5.5.
    eos=EquationOfState("vinet", v0=2.8664**3, k0=162.1, k0_prime=5.4),
    # Gives B = 0.35 A^2, as measured: Butt et al., Acta Cryst. A44, 396 (1988).
    debye_k=430.0,
)

EPSILON_IRON = Phase(
    name="hcp",
    space_group="P6_3/mmc",
    axes="hexagonal",
    sites=_hcp("Fe"),
    # Dewaele et al., Phys. Rev. Lett. 97, 215504 (2006), table I, Birch-Murnaghan row.
    eos=EquationOfState("birch-murnaghan", v0=22.468, k0=165.0, k0_prime=4.97),
    # 417 K at V0, Grueneisen parameter 1.875 (Dewaele et al. 2006): 470 K at 13 GPa.
    debye_k=470.0,
    # c/a = 1.6092 at 20.311 A^3 and 1.6033 at 18.045 A^3, 304 K: Yamazaki et al., Geophys. Res.
    # Lett. 39, L20308 (2012), table S1, run M1081.
    axial_ratio=(1.6092, 20.311, 0.0026),
)

DIAMOND = Phase(
    name="diamond",
    space_group="Fd-3m",
    axes="cubic",
    sites=_fcc("C") + _fcc("C", 0.25),
    # Dewaele et al., Phys. Rev. B 77, 094106 (2008), table III.
    eos=EquationOfState("vinet", v0=45.3544, k0=444.5, k0_prime=4.18),
    # Gives B = 0.14 A^2; Debye temperature from X-ray intensities 1860 K: International Tables for
    # X-ray Crystallography III (1962), section 3.3.5.
    debye_k=1860.0,
)

# Fe0.93O, hydrostatic: Jacobsen et al., J. Synchrotron Rad. 12, 577 (2005). Debye temperature: as
# for FeO in Stixrude and Lithgow-Bertelloni, Geophys. J. Int. 184, 1180 (2011).
_WUSTITE = {"Fe": 0.93}
WUSTITE = _rock_salt(
    "B1", _WUSTITE, EquationOfState("birch-murnaghan", v0=79.41, k0=146.0, k0_prime=4.0), 454.0
)
RHOMBOHEDRAL_WUSTITE = _distorted("rB1", _WUSTITE, WUSTITE)

# (Mg0.2Fe0.8)O: V0, K0 and K0' of Mg0.215Fe0.762O, hydrostatic: Finkelstein et al., Am. Mineral.
# 102, 1709 (2017), table 3. Debye temperature between those of FeO (454 K) and MgO (767 K), both
# Stixrude and Lithgow-Bertelloni (2011).
_MAGNESIOWUSTITE = {"Mg": 0.2, "Fe": 0.8}
MAGNESIOWUSTITE = _rock_salt(
    "B1",
    _MAGNESIOWUSTITE,
    EquationOfState("birch-murnaghan", v0=78.87, k0=148.0, k0_prime=4.09),
    0.8 * 454.0 + 0.2 * 767.0,
)
RHOMBOHEDRAL_MAGNESIOWUSTITE = _distorted("rB1", _MAGNESIOWUSTITE, MAGNESIOWUSTITE)

# Pressure calibrant, pressure medium: Fei et al., Proc. Natl. Acad. Sci. 104, 9182 (2007), table 1,
# Vinet; their Debye temperatures, that of neon raised from 75 K at V0 with its Grueneisen parameter
# 2.05 to the 0.55 V0 of 15 GPa.
PLATINUM = Phase(
    "Pt", "Fm-3m", "cubic", _fcc("Pt"), EquationOfState("vinet", 60.38, 277.0, 5.08), 230.0
)
NEON = Phase(
    "Ne", "Fm-3m", "cubic", _fcc("Ne"), EquationOfState("vinet", 88.967, 1.16, 8.23), 230.0
)

# The gasket, at whose rim the tails of the beam scatter: Anzellini et al., J. Appl. Phys. 115,
# 043511 (2014), Vinet. c/a = 1.6147, Debye temperature 416 K: as for the metal at ambient pressure.
RHENIUM = Phase(
    "Re",
    "P6_3/mmc",
    "hexagonal",
    _hcp("Re"),
    EquationOfState("vinet", 29.46, 352.6, 4.56),
    416.0,
    axial_ratio=(1.6147, 29.46, 0.0),
)
