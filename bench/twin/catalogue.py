"""The experiments that the twin knows.

``fe-ramp`` is the twin's own. The other ten stand for those of Yue Sun, Application of Machine
Learning to the Classification of Spectra-like Data, PhD thesis, University of Szeged (2023), with
the names of its table 2.1.

What is known of them: ``mgfeo-ramp`` has 349 patterns of 4023 points, two theta 9.5604 to 25.5496
deg, 25.6 keV, (Mg0.2Fe0.8)O from 1 to above 100 GPa in 50 s, B1 to rhombohedral rB1; published
models find its boundary between patterns 173 and 189. D1, D4, D8 and D9 have 60, 130, 222 and 460
patterns. Iron goes from bcc to hcp abruptly, FeO from B1 to rB1 continuously, with 20 and 65
patterns during. The author names a fast and a slow series of FeO together with D1 and D4. D6 has
platinum as pressure calibrant, D7 neon as medium.

What is not known here is chosen: that D1 is the FeO of 20 and D4 that of 65 patterns during; that
the others are iron; the numbers of patterns of D2, D3, D5, D6 and D7 (286 in all, the size of the
labelled set of the thesis's chapter 6, which need not be theirs); all other numbers before, during
and after; exposures, ramps, ranges of two theta, and that the impurity is a trace of a rhenium
gasket.
"""

from dataclasses import replace

from phasewatch.bench.twin.experiment import Experiment, Extra, Range
from phasewatch.bench.twin.phases import (
    ALPHA_IRON,
    EPSILON_IRON,
    MAGNESIOWUSTITE,
    NEON,
    PLATINUM,
    RHENIUM,
    RHOMBOHEDRAL_MAGNESIOWUSTITE,
    RHOMBOHEDRAL_WUSTITE,
    WUSTITE,
)

FE_RAMP = Experiment(
    name="fe-ramp",
    title="iron in a diamond anvil cell, pressure ramp through alpha (bcc) to epsilon (hcp)",
    counts=(130, 70, 100),
    low=ALPHA_IRON,
    high=EPSILON_IRON,
    wavelength_m=4.836e-11,  # 25.6 keV, that of P02.2's high-pressure station
    two_theta_deg=(9.9, 25.1),
    start_gpa=(4.0, 8.0),
    end_gpa=(20.0, 25.0),
    # Membrane and piezo-driven cells: Jenei et al., Rev. Sci. Instrum. 90, 065114 (2019), and the
    # dynamic cells reviewed there, reach these rates and a thousand times more.
    rate_gpa_s=(5.0, 60.0),
    # First hcp at 13 GPa: Takahashi and Bassett, Science 145, 483 (1964). Hydrostatic: from 14.9
    # GPa on compression, from 12 GPa on release, two phases over about 2 GPa: Dewaele et al., Phys.
    # Rev. B 91, 174105 (2015). Half of it at 15 GPa up and at 9 GPa down, and much wider: Taylor et
    # al., J. Appl. Phys. 69, 6126 (1991).
    onset_gpa=(11.5, 14.0),
    width_gpa=(2.0, 4.0),
    hysteresis_gpa=(3.0, 6.0),
    counts_per_pixel=(0.3, 1.2),
    peak_to_background=(1.5, 3.5),
    air_share=(0.05, 0.3),
    microstrain=(0.002, 0.004),
    microstrain_per_gpa=(0.0001, 0.0002),
    uniaxial_strain=(0.0, 0.002),
    texture=(0.1, 0.3),
    graininess=(0.05, 0.25),
    flux_noise=(0.005, 0.02),
    poni_shift_m=0.0002,
)

# Smooth background per pixel and second. Chosen: it gives fe-ramp its counts.
FLUX: Range = (100.0, 250.0)
GASKET = Extra(RHENIUM, "gasket", height=(0.0, 0.05), graininess=0.4)
NEAR = 0.02  # how far a programmed pressure may be missed, over the height of the ramp


def _near(value: float, by: float) -> Range:
    return value - by, value + by


def _ramp(
    model: Experiment,
    name: str,
    title: str,
    counts: tuple[int, int, int],
    *,
    gpa: Range,
    exposure_s: float,
    onset_gpa: Range,
    width_gpa: float,
    extras: tuple[Extra, ...] = (),
    printed: str = "a row of its own; which sample is not known here",
) -> Experiment:
    """Return `model` with another ramp, from `gpa[0]` to `gpa[1]` in `counts` patterns."""
    rise = gpa[1] - gpa[0]
    rate = rise / (sum(counts) * exposure_s)
    return replace(
        model,
        name=name,
        title=title,
        counts=counts,
        start_gpa=_near(gpa[0], NEAR * rise / 2),
        end_gpa=_near(gpa[1], NEAR * rise),
        rate_gpa_s=(0.9 * rate, 1.1 * rate),
        onset_gpa=onset_gpa,
        width_gpa=_near(width_gpa, 0.08 * width_gpa),
        counts_per_pixel=(FLUX[0] * exposure_s, FLUX[1] * exposure_s),
        extras=(*extras, GASKET),
        printed=printed,
    )


# Onsets: see fe-ramp. The widths are chosen, a fraction of the 2 GPa that iron takes in a
# hydrostatic medium at rest, as the thesis calls the transition abrupt.
_IRON = replace(
    FE_RAMP,
    curvature=(-0.02, 0.02),
    azimuthal=(0.0, 0.15),
)

# B1 to rB1 in FeO: at 12 GPa in a diamond anvil cell, Kantor et al., GSA Special Paper 421 (2007);
# at 18 GPa in helium, Shu et al., N. Jb. Miner. Abh. 172, 309 (1998); at 23 to 28 GPa in helium,
# Jacobsen et al., J. Synchrotron Rad. 12, 577 (2005). In (Mg0.22Fe0.78)O in neon c/a grows from
# sqrt(6) at about 20 GPa to 2.529 at 53.3 GPa, 0.1 % per GPa: Finkelstein et al., Am. Mineral. 102,
# 1709 (2017), table 2; in FeO taken to grow a little faster. That the sample does not turn over at
# once is the spread of stress in it: width chosen to give the numbers of patterns.
_OXIDE = replace(
    _IRON,
    low=WUSTITE,
    high=RHOMBOHEDRAL_WUSTITE,
    distortion_per_gpa=(0.0011, 0.0016),
    microstrain=(0.003, 0.0045),
    microstrain_per_gpa=(0.00005, 0.0001),
    uniaxial_strain=(0.0, 0.001),
)

_FIRST_DEG, _STEP_DEG = 9.5603831, 0.00397544  # of the axis of the published patterns

MGFEO_RAMP = replace(
    _ramp(
        _OXIDE,
        "mgfeo-ramp",
        "(Mg0.2Fe0.8)O, B1 to rhombohedral rB1, 1 to above 100 GPa in 50 s",
        (157, 42, 150),
        gpa=(1.0, 105.0),
        exposure_s=50 / 349,
        onset_gpa=(21.5, 23.0),
        width_gpa=13.0,
        printed="349 patterns, 1 to above 100 GPa in 50 s, boundary between patterns 173 and 189",
    ),
    low=MAGNESIOWUSTITE,
    high=RHOMBOHEDRAL_MAGNESIOWUSTITE,
    wavelength_m=12.398420e-10 / 25.6,
    two_theta_deg=(_FIRST_DEG - _STEP_DEG / 2, _FIRST_DEG + (4023 - 0.5) * _STEP_DEG),
    poni_offset_m=(0.0, -0.02, -0.004),
    start_gpa=(0.8, 1.2),
    # The boundary of the real set lies at half of its patterns: so its ramp was slow at first.
    curvature=(-0.25, -0.235),
    distortion_per_gpa=(0.0009, 0.0011),
    microstrain_per_gpa=(0.00003, 0.00006),
    uniaxial_strain=(0.0, 0.0004),
)

_D = (
    _ramp(
        _OXIDE,
        "D1",
        "FeO, B1 to rB1, fast",
        (20, 20, 20),
        gpa=(6.5, 33.5),
        exposure_s=0.02,
        onset_gpa=(15.0, 16.0),
        width_gpa=9.0,
        printed="60 patterns; FeO, continuous, 20 or 65 during",
    ),
    _ramp(
        _IRON,
        "D2",
        "Fe, bcc to hcp",
        (20, 2, 22),
        gpa=(6.0, 22.0),
        exposure_s=0.05,
        onset_gpa=(13.0, 13.6),
        width_gpa=0.8,
    ),
    _ramp(
        _IRON,
        "D3",
        "Fe, bcc to hcp",
        (24, 3, 25),
        gpa=(6.0, 22.0),
        exposure_s=0.02,
        onset_gpa=(13.1, 13.7),
        width_gpa=0.8,
    ),
    _ramp(
        _OXIDE,
        "D4",
        "FeO, B1 to rB1, slow",
        (35, 65, 30),
        gpa=(9.9, 30.7),
        exposure_s=0.2,
        onset_gpa=(15.2, 15.8),
        width_gpa=10.4,
        printed="130 patterns; FeO, continuous, 20 or 65 during",
    ),
    _ramp(
        _IRON,
        "D5",
        "Fe, bcc to hcp",
        (30, 3, 37),
        gpa=(6.0, 24.0),
        exposure_s=0.01,
        onset_gpa=(13.4, 14.0),
        width_gpa=0.8,
    ),
    _ramp(
        _IRON,
        "D6",
        "Fe, bcc to hcp, with platinum as pressure calibrant",
        (26, 3, 35),
        gpa=(7.0, 23.0),
        exposure_s=0.05,
        onset_gpa=(13.2, 13.8),
        width_gpa=0.8,
        extras=(Extra(PLATINUM, "calibrant", height=(0.4, 0.8), graininess=0.2),),
        printed="platinum as pressure calibrant",
    ),
    # Neon is solid above 4.8 GPa at room temperature, in few large grains, and bears little shear:
    # Klotz et al., J. Phys. D 42, 075413 (2009). Onset as in Dewaele et al. (2015), see fe-ramp.
    replace(
        _ramp(
            _IRON,
            "D7",
            "Fe, bcc to hcp, with neon as pressure medium",
            (30, 3, 23),
            gpa=(7.0, 21.0),
            exposure_s=0.1,
            onset_gpa=(14.3, 14.9),
            width_gpa=0.8,
            extras=(Extra(NEON, "pressure medium", height=(0.1, 0.3), graininess=1.0),),
            printed="neon as pressure medium",
        ),
        microstrain=(0.0015, 0.0025),
        microstrain_per_gpa=(0.00003, 0.00008),
        uniaxial_strain=(0.0, 0.0005),
    ),
    _ramp(
        _IRON,
        "D8",
        "Fe, bcc to hcp",
        (95, 6, 121),
        gpa=(6.0, 24.0),
        exposure_s=0.005,
        onset_gpa=(13.4, 14.0),
        width_gpa=0.5,
        printed="222 patterns",
    ),
    _ramp(
        _IRON,
        "D9",
        "Fe, bcc to hcp",
        (210, 9, 241),
        gpa=(5.0, 24.0),
        exposure_s=0.002,
        onset_gpa=(13.4, 13.9),
        width_gpa=0.4,
        printed="460 patterns",
    ),
)

THESIS = (MGFEO_RAMP.name, *(experiment.name for experiment in _D))
EXPERIMENTS = {experiment.name: experiment for experiment in (FE_RAMP, MGFEO_RAMP, *_D)}
