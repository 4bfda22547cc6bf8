"""Simulated frames, seen by pyFAI."""

from dataclasses import replace

import numpy as np
import pytest
from pyFAI.detectors import Detector as PyfaiDetector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from scipy.optimize import curve_fit

from phasewatch.bench.twin.crystal import cell
from phasewatch.bench.twin.detector import SATURATION, modules
from phasewatch.bench.twin.phases import ALPHA_IRON, EPSILON_IRON
from phasewatch.bench.twin.run import Run, open_run
from phasewatch.calibration.lambda_modules import ModuleLayout


@pytest.fixture(scope="module", params=["lambda2m", "p022"])
def run(request):
    plain = open_run("fe-ramp", seed=2, frames=4, layout=request.param)
    # unstressed, so that the lines are where the lattice constants alone put them
    still = replace(plain.conditions, uniaxial_strain=0.0, counts_per_pixel=1.0)
    return Run(plain.experiment, still, plain.layout)


def integrate(run, frame):
    grid = PyfaiDetector(55e-6, 55e-6, max_shape=run.layout.shape)
    geometry = AzimuthalIntegrator(
        **run.detector.poni, detector=grid, wavelength=run.experiment.wavelength_m
    )
    return geometry.integrate1d(
        frame,
        len(run.axis),
        unit="2th_deg",
        radial_range=run.experiment.two_theta_deg,
        mask=run.mask | (frame >= SATURATION),
        polarization_factor=0.99,
        method=("no", "histogram", "cython"),
    )


def two_theta(run, d):
    return np.degrees(2 * np.arcsin(run.experiment.wavelength_m * 1e10 / (2 * np.asarray(d))))


def test_peaks_are_where_crystallography_says(run):
    alpha = cell(ALPHA_IRON, run.pressure_gpa[0])
    epsilon = cell(EPSILON_IRON, run.pressure_gpa[-1])
    d_101 = 1 / np.sqrt(4 / 3 / epsilon.a**2 + 1 / epsilon.c**2)
    d_100 = epsilon.a * np.sqrt(3) / 2
    wanted = {
        0: two_theta(run, [alpha.a / np.sqrt(2), alpha.a / np.sqrt(6)]),
        3: two_theta(run, [d_100, d_101]),
    }
    for i, positions in wanted.items():
        pattern = integrate(run, run.frame(i))
        assert pattern.radial == pytest.approx(run.axis, abs=1e-4)
        for position in positions:
            near = np.abs(run.axis - position) < 0.3
            start = (pattern.intensity[near].max(), position + 0.05, 0.05, run.expected(i)[0], 0.0)
            fit, _ = curve_fit(line, run.axis[near], pattern.intensity[near], p0=start)
            assert fit[1] == pytest.approx(position, abs=0.01)  # one pixel


def line(x, height, centre, width, level, slope):
    return height * np.exp(-0.5 * ((x - centre) / width) ** 2) + level + slope * (x - centre)


def spread(z):
    return 1.4826 * np.median(np.abs(z - np.median(z)))  # robust: a few bins hold new faults


def test_frame_has_the_expected_intensity_and_poisson_noise(run):
    found = integrate(run, run.frame(0))
    expected = run.expected(0) * run._flux[0]
    assert np.median(found.intensity / expected) == pytest.approx(1.0, abs=0.01)
    # a bin of normalisation N holds N I counts, of variance N I
    z = (found.intensity - expected) / np.sqrt(expected / found.sum_normalization)
    assert spread(z) == pytest.approx(1.0, abs=0.06)


def test_pattern_is_what_integrating_the_frame_gives(run):
    pattern, found = run.pattern(3), integrate(run, run.frame(3))
    assert pattern.dtype == np.float32
    expected = run.expected(3) * run._flux[3]
    z = (pattern - found.intensity) / np.sqrt(2 * expected / found.sum_normalization)
    assert abs(np.median(z)) < 0.1
    assert spread(z) == pytest.approx(1.0, abs=0.06)
    # faults and faint spots that the mask does not know are in both, at the same bins
    assert np.mean(np.abs(z) > 5) < 0.002


def test_frame_does_not_depend_on_the_order(run):
    again = Run(run.experiment, run.conditions, run.layout)
    late, early = again.frame(2), again.frame(0)
    assert np.array_equal(run.frame(0), early)
    assert np.array_equal(run.frame(2), late)
    assert np.array_equal(run.pattern(1), again.pattern(1))


def test_frame_has_gaps_faults_and_twelve_bits(run):
    frame = run.frame(0)
    assert frame.shape == run.layout.shape
    assert frame.dtype == run.layout.dtype
    assert np.all(frame[run.detector.gaps] == run.layout.gap)
    assert frame.max() == SATURATION
    dead, rate = run.detector.faults
    assert np.all(frame[dead] == 0)
    assert np.all(frame[np.isinf(rate)] == SATURATION)
    new = (run.detector.extra_counts > 0) & ~run.detector.mask
    assert 0 < new.sum() < 100  # faults that the mask does not know
    assert np.all(run.mask[run.detector.gaps])
    assert run.mask.mean() < run.detector.gaps.mean() + 0.01


def test_bins_are_well_filled(run):
    bins, _ = run._bins
    assert np.bincount(bins[bins >= 0], minlength=len(run.axis)).min() > 40


def test_modules_are_the_inverse_of_assembly():
    run = open_run("fe-ramp", seed=1, frames=3, layout="p022")
    frame = run.frame(1)
    layout = ModuleLayout.from_translations(
        [(0, 0, 0), (-2, 660, 0), (-2, 1317, 0)], [(516, 1554)] * 3
    )
    assert np.array_equal(layout.assemble(modules(frame)), frame)
    bits = run.detector.pixel_mask()
    assert np.array_equal(layout.assemble_mask(bits), run.detector.mask)
