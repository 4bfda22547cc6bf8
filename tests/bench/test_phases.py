"""Oxides, calibrant, medium and gasket against the literature."""

import numpy as np
import pytest

from phasewatch.bench.twin.crystal import EquationOfState, cell, reflections
from phasewatch.bench.twin.pattern import lines, profile
from phasewatch.bench.twin.phases import (
    MAGNESIOWUSTITE,
    NEON,
    PLATINUM,
    RHENIUM,
    RHOMBOHEDRAL_MAGNESIOWUSTITE,
    RHOMBOHEDRAL_WUSTITE,
    WUSTITE,
)

WAVELENGTH_A = 0.48431  # 25.6 keV


def names(found):
    return ["".join(map(str, hkl)) for hkl in found.hkl.tolist()]


@pytest.mark.parametrize(
    ("phase", "d"),
    [
        # 111, 200, 220 at ambient pressure: wustite JCPDS 6-0615, platinum JCPDS 4-0802
        (WUSTITE, [2.49, 2.153, 1.523]),
        (PLATINUM, [2.265, 1.9616, 1.3873]),
    ],
)
def test_spacings_at_ambient_pressure(phase, d):
    found = reflections(phase, 0.0, d_min=1.35)
    assert names(found)[:3] == ["111", "200", "220"]
    assert found.d[:3] == pytest.approx(d, rel=4e-3)


def test_spacings_of_rhenium():
    # 100, 002, 101: JCPDS 5-0702
    found = reflections(RHENIUM, 0.0, d_min=2.0)
    assert names(found) == ["100", "002", "101"]
    assert found.d == pytest.approx([2.388, 2.226, 2.105], rel=2e-3)


@pytest.mark.parametrize(
    ("phase", "pressure", "volume", "tolerance"),
    [
        # Dobrosavljevic et al., Minerals 9, 762 (2019), table S1, (Mg0.06Fe0.94)O: 9.303 A^3 an
        # atom at 9.7 GPa, 8.757 at 23.3 GPa
        (WUSTITE, 9.7, 8 * 9.303, 0.01),
        (WUSTITE, 23.3, 8 * 8.757, 0.01),
        # Finkelstein et al., Am. Mineral. 102, 1709 (2017): ambient, and the density of 8.17 g/cm3
        # that they give for 135.8 GPa as (Mg0.22Fe0.78)O
        (MAGNESIOWUSTITE, 0.0, 78.94, 0.002),
        (MAGNESIOWUSTITE, 135.8, 4 * 64.905 / (0.602214 * 8.17), 0.002),
    ],
)
def test_volumes_under_pressure(phase, pressure, volume, tolerance):
    assert cell(phase, pressure).volume == pytest.approx(volume, rel=tolerance)


@pytest.mark.parametrize("pressure", [10.0, 25.0])
def test_calibrant_and_medium_agree_with_other_fits(pressure):
    # Dewaele, Minerals 9, 684 (2019), scale of Mao et al.; the Birch-Murnaghan fit of Fei et al.,
    # Proc. Natl. Acad. Sci. 104, 9182 (2007)
    platinum = EquationOfState("vinet", v0=4 * 15.099, k0=273.4, k0_prime=4.83)
    assert cell(PLATINUM, pressure).volume == pytest.approx(platinum.volume(pressure), rel=3e-3)
    neon = EquationOfState("birch-murnaghan", v0=88.967, k0=1.43, k0_prime=8.02)
    assert cell(NEON, pressure).volume == pytest.approx(neon.volume(pressure), rel=0.03)


def test_metal_and_oxygen_add_up_in_200_and_cancel_in_111():
    found = reflections(WUSTITE, 0.0, d_min=2.0)
    f = np.sqrt(found.f2)
    assert f[1] / f[0] > 1.3
    assert found.multiplicity.tolist() == [8, 6]


@pytest.mark.parametrize("pressure", [5.0, 60.0])
def test_without_distortion_rb1_is_b1(pressure):
    def pattern(phase, **options):
        shape = lines(
            phase,
            pressure,
            wavelength_a=WAVELENGTH_A,
            two_theta_max_deg=25.5,
            microstrain=0.003,
            **options,
        )
        return profile(np.linspace(10, 25, 2000), shape)

    for low, high in (
        (WUSTITE, RHOMBOHEDRAL_WUSTITE),
        (MAGNESIOWUSTITE, RHOMBOHEDRAL_MAGNESIOWUSTITE),
    ):
        cubic = pattern(low)
        assert pattern(high) == pytest.approx(cubic, rel=1e-6, abs=1e-6 * cubic.max())
        assert np.abs(pattern(high, stretch=0.02) - cubic).max() > 0.2 * cubic.max()
        # the texture of a line stays when it splits
        weights = np.linspace(0.5, 1.5, 64)
        assert pattern(high, weights=weights) == pytest.approx(pattern(low, weights=weights))


def test_distortion_splits_111_and_leaves_200_whole():
    cubic = reflections(WUSTITE, 30.0, d_min=1.3)
    found = reflections(RHOMBOHEDRAL_WUSTITE, 30.0, d_min=1.3, distortion=0.03)
    d = dict(zip(names(found), found.d.tolist(), strict=True))
    m = dict(zip(names(found), found.multiplicity.tolist(), strict=True))
    origin = dict(zip(names(found), found.origin.tolist(), strict=True))
    # 111 becomes 003 and 101, 2 + 6 planes; 220 becomes 104 and 110
    assert (m["003"], m["101"], m["104"], m["110"]) == (2, 6, 6, 6)
    assert origin["003"] == origin["101"] == 0
    assert d["003"] > cubic.d[0] > d["101"]
    # d of 003 grows as c, by (1 + e)^(2/3)
    assert d["003"] / cubic.d[0] == pytest.approx(1.03 ** (2 / 3), rel=1e-9)
    assert d["110"] / cubic.d[2] == pytest.approx(1.03 ** (-1 / 3), rel=1e-9)
    assert d["10-2"] == pytest.approx(cubic.d[1], rel=0.005)
    assert cell(RHOMBOHEDRAL_WUSTITE, 30.0, distortion=0.03).volume == pytest.approx(
        0.75 * cell(WUSTITE, 30.0).volume
    )


def test_splitting_grows_evenly_from_zero():
    splits = []
    for distortion in (0.0, 0.005, 0.01, 0.02):
        found = reflections(RHOMBOHEDRAL_WUSTITE, 20.0, d_min=2.2, distortion=distortion)
        d = dict(zip(names(found), found.d.tolist(), strict=True))
        splits.append(d["003"] / d["101"] - 1)
    assert splits[0] == pytest.approx(0.0, abs=1e-12)
    # by differentiation: d of 003 by 2/3, d of 101 by -2/9 of the distortion
    assert splits[1:] == pytest.approx([8 / 9 * e for e in (0.005, 0.01, 0.02)], rel=0.02)
