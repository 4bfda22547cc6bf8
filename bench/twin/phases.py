"""The phases the twin knows, with the source of every constant beside it."""

from phasewatch.bench.twin.crystal import EquationOfState, Phase

ALPHA_IRON = Phase(
    name="bcc",
    space_group="Im-3m",
    axes="cubic",
    sites=(("Fe", 0.0, 0.0, 0.0), ("Fe", 0.5, 0.5, 0.5)),
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
    sites=(("Fe", 1 / 3, 2 / 3, 0.25), ("Fe", 2 / 3, 1 / 3, 0.75)),
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
    sites=tuple(
        ("C", (x + o) % 1, (y + o) % 1, (z + o) % 1)
        for x, y, z in ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
        for o in (0.0, 0.25)
    ),
    # Dewaele et al., Phys. Rev. B 77, 094106 (2008), table III.
    eos=EquationOfState("vinet", v0=45.3544, k0=444.5, k0_prime=4.18),
    # Gives B = 0.14 A^2; Debye temperature from X-ray intensities 1860 K: International Tables for
    # X-ray Crystallography III (1962), section 3.3.5.
    debye_k=1860.0,
)
