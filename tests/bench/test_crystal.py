"""Crystallography of the twin against the literature."""

import numpy as np
import pytest

from phasewatch.bench.twin.atoms import ATOMIC_MASS, ATOMIC_NUMBER, compton, debye_b, form_factor
from phasewatch.bench.twin.crystal import EquationOfState, cell, reflections
from phasewatch.bench.twin.phases import ALPHA_IRON, DIAMOND, EPSILON_IRON


@pytest.mark.parametrize("form", ["vinet", "birch-murnaghan"])
def test_volume_and_pressure_are_inverse(form):
    eos = EquationOfState(form, v0=22.4, k0=165.0, k0_prime=5.0)
    for pressure in (0.0, 1e-4, 13.0, 60.0):
        assert eos.pressure(eos.volume(pressure)) == pytest.approx(pressure, abs=1e-7)
    step = 1e-4
    slope = -eos.v0 * (eos.pressure(eos.v0 + step) - eos.pressure(eos.v0 - step)) / (2 * step)
    assert slope == pytest.approx(eos.k0, rel=1e-6)


def test_pressure_outside_the_range_of_volumes_is_refused():
    with pytest.raises(ValueError, match="sign"):
        ALPHA_IRON.eos.volume(1e4)


def test_alpha_iron_at_ambient_pressure():
    # a = 2.8664 A; d of 110, 200, 211: JCPDS 6-0696
    assert cell(ALPHA_IRON, 0.0).a == pytest.approx(2.8664, abs=1e-6)
    found = reflections(ALPHA_IRON, 0.0, d_min=1.1)
    assert found.d == pytest.approx([2.0268, 1.4332, 1.1702], abs=1e-4)


@pytest.mark.parametrize(
    ("pressure", "a", "c"),
    [
        # Yamazaki et al., Geophys. Res. Lett. 39, L20308 (2012), table S1, 304 K
        (19.8, 2.4461, 3.9433),
        (22.7, 2.4426, 3.9307),
        # Sakai et al., Phys. Earth Planet. Inter. 228, 114 (2014), table 2, 300 K
        (24.6, 2.437, 3.912),
    ],
)
def test_epsilon_iron_as_measured(pressure, a, c):
    lattice = cell(EPSILON_IRON, pressure)
    assert lattice.a == pytest.approx(a, rel=2e-3)
    assert lattice.c == pytest.approx(c, rel=3e-3)


def test_volume_drops_by_five_percent_at_the_transition():
    # -0.20 (3) of 6.6 cm3/mol at 13 GPa: Takahashi and Bassett, Science 145, 483 (1964); 5 % since
    low, high = cell(ALPHA_IRON, 13.0).volume, cell(EPSILON_IRON, 13.0).volume
    assert 1 - high / low == pytest.approx(0.05, abs=0.01)


def test_bcc_reflections_have_even_sums():
    found = reflections(ALPHA_IRON, 5.0, d_min=0.6)
    assert np.all(found.hkl.sum(axis=1) % 2 == 0)
    names = ["".join(map(str, hkl)) for hkl in found.hkl.tolist()]
    assert names[:6] == ["110", "200", "211", "220", "310", "222"]
    assert found.multiplicity[:6].tolist() == [12, 6, 24, 12, 24, 8]


def test_hcp_reflections_obey_the_rule_and_the_structure_factor():
    # absent for h + 2k = 3n with l odd; |F|^2 = 4 f^2 cos^2(pi ((h + 2k)/3 + l/2))
    found = reflections(EPSILON_IRON, 15.0, d_min=0.8)
    h, k, l = found.hkl.T  # noqa: E741
    assert not np.any(((h + 2 * k) % 3 == 0) & (l % 2 == 1))
    names = ["".join(map(str, hkl)) for hkl in found.hkl.tolist()]
    assert names[:6] == ["100", "002", "101", "102", "110", "103"]
    assert found.multiplicity[:6].tolist() == [6, 2, 12, 12, 6, 12]
    s = 0.5 / found.d
    f = form_factor("Fe", s) * np.exp(
        -debye_b(ATOMIC_MASS["Fe"], debye_k=EPSILON_IRON.debye_k) * s**2
    )
    # the sites sit at 1/3, 2/3, 1/4: half of the phase between them is (h + 2k)/3 + l/2
    expected = 4 * f**2 * np.cos(np.pi * ((h + 2 * k) / 3 + l / 2)) ** 2
    assert found.f2 == pytest.approx(expected, rel=1e-6)


def test_diamond_has_no_200():
    names = ["".join(map(str, hkl)) for hkl in reflections(DIAMOND, 0.0, d_min=1.0).hkl.tolist()]
    assert names == ["111", "220", "311"]


def test_atoms_scatter_as_known():
    for element, electrons in ATOMIC_NUMBER.items():
        assert form_factor(element, 0.0) == pytest.approx(electrons, abs=0.06)
    # f of iron at s = 0.5 1/A: International Tables C, table 6.1.1.1
    assert form_factor("Fe", 0.5) == pytest.approx(11.47, abs=0.1)
    assert debye_b(ATOMIC_MASS["Fe"], debye_k=430.0) == pytest.approx(0.35, abs=0.01)
    # S of carbon: Hubbell et al., J. Phys. Chem. Ref. Data 4, 471 (1975), at E small: no recoil
    assert compton("C", 0.5, energy_kev=12.4) == pytest.approx(4.48, rel=0.03)
    assert compton("C", 0.0, energy_kev=25.6) == pytest.approx(0.0, abs=0.01)
