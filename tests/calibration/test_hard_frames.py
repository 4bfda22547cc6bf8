"""What an experiment may bring: the beam off the detector, all corrections at once, odd counts."""

import numpy as np
import pyFAI
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.calibration import Calibration, CalibrationError, Integrator

SPLITS = ("no", "bbox", "full")
SHAPE = (211, 303)  # no multiple of 8


@pytest.fixture(scope="module")
def poni_path(tmp_path_factory):
    return tmp_path_factory.mktemp("geometry") / "off.poni"


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    centre=st.tuples(st.floats(-0.2, 0.25), st.floats(-0.2, 0.25)),
    rotations=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    split=st.sampled_from(SPLITS),
    unit=st.sampled_from(["2th_deg", "q_nm^-1", "q_A^-1"]),
    n_bins=st.sampled_from([3, 300, 5000]),
)
def test_off_the_detector_with_all_corrections_patterns_and_variances_equal_pyfais(
    poni_path, seed, centre, rotations, split, unit, n_bins
):
    turned = "".join(f"Rot{i + 1}: {r}\n" for i, r in enumerate(rotations))
    poni_path.write_text(
        'poni_version: 2\nDetector: Detector\nDetector_config: {"pixel1": 3e-4, "pixel2": 2e-4}\n'
        f"Distance: 0.2\nPoni1: {centre[0]}\nPoni2: {centre[1]}\n{turned}Wavelength: 4.8e-11\n"
    )
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < 0.05
    dark, flat = rng.uniform(0, 2, SHAPE).astype("f4"), rng.uniform(0.8, 1.2, SHAPE).astype("f4")
    calibration = Calibration.load(poni_path, mask=mask, dark=dark, flat=flat, polarization=0.95)
    frames = (1 + rng.poisson(2, (3, *SHAPE))).astype(np.uint16)
    ai = pyFAI.load(str(poni_path))
    ai.detector.shape = ai.detector.max_shape = SHAPE

    integrator = Integrator(calibration, n_bins=n_bins, unit=unit, split=split)
    patterns, variances = integrator.with_variance(frames)
    theirs = ai.integrate1d(
        frames[1],
        n_bins,
        unit=unit,
        method=(split, "csr", "cython"),
        mask=mask,
        dark=dark,
        flat=flat,
        polarization_factor=0.95,
        error_model="poisson",
    )

    np.testing.assert_array_equal(integrator.axis, theirs.radial)
    filled = np.asarray(theirs.count) > 0
    np.testing.assert_array_equal(integrator.valid, filled)
    for ours, expected in ((patterns[1], theirs.intensity), (variances[1], theirs.sem**2)):
        np.testing.assert_array_equal(np.isfinite(ours), filled)
        scale = np.abs(expected[filled]).max()
        np.testing.assert_allclose(ours[filled], expected[filled], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("split", SPLITS)
def test_there_may_be_more_bins_than_pixels(write_poni, split):
    integrator = Integrator(Calibration.load(write_poni(), shape=(5, 4)), n_bins=300, split=split)
    patterns = integrator(np.full((4, 5, 4), 7, np.uint16))
    np.testing.assert_array_equal(np.isfinite(patterns), np.tile(integrator.valid, (4, 1)))
    assert 0 < integrator.valid.sum() <= (20 if split == "no" else 300)
    assert np.nanmin(patterns) >= 7


@pytest.mark.parametrize("dtype", ["f4", "f8", "u4", "i4"])
@pytest.mark.parametrize("n", [1, 4])
def test_ones_beside_a_count_of_2_to_the_24_are_not_lost(write_poni, dtype, n):
    calibration = Calibration.load(write_poni(), shape=(64, 64))
    integrator = Integrator(calibration, n_bins=1)
    frames = np.ones((n, 64, 64), dtype)
    frames[:, 0, 0] = 2**24

    (norm,) = integrator._integrate.plan.weights[0]
    np.testing.assert_array_equal(integrator(frames)[:, 0], np.float32((2**24 + 4095) / norm))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n", [1, 4])
def test_a_bad_call_leaves_nothing_behind(write_poni, split, n):
    integrator = Integrator(Calibration.load(write_poni(), shape=(30, 40)), n_bins=20, split=split)
    rng = np.random.default_rng(0)
    frames = rng.poisson(5, (n, 30, 40)).astype(np.int32)
    expected = integrator.with_variance(frames)
    spoilt = frames.copy()
    spoilt[:, ::3] = -1
    bad = frames.copy()
    bad[-1] = -1
    for _ in range(2):
        with pytest.raises(CalibrationError, match="all pixels invalid"):
            integrator.with_variance(bad)
        assert not np.array_equal(integrator(spoilt), expected[0])
        np.testing.assert_array_equal(integrator.with_variance(frames), expected)
        np.testing.assert_array_equal(integrator(frames), expected[0])


@pytest.mark.parametrize("split", SPLITS)
def test_frames_of_many_threads_do_not_mix(write_poni, split):
    from concurrent.futures import ThreadPoolExecutor

    integrator = Integrator(Calibration.load(write_poni(), shape=(90, 80)), n_bins=40, split=split)
    frames = np.random.default_rng(1).poisson(9, (40, 90, 80)).astype(np.uint16)
    expected = integrator(frames)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(integrator, np.array_split(frames, 13)))
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("split", SPLITS)
def test_nan_and_infinite_pixels_leave_a_pattern_as_masked_ones_do(write_poni, split):
    rng = np.random.default_rng(2)
    frame = rng.poisson(50, (30, 40)).astype(np.float32)
    bad = rng.random((30, 40)) < 0.1
    spoilt = np.where(bad, rng.choice([np.nan, np.inf, -np.inf], bad.shape), frame).astype("f4")
    limits = (1.5, 4.0)
    plain = Calibration.load(write_poni(), shape=(30, 40))
    masked = Calibration.load(write_poni(), shape=(30, 40), mask=bad)

    ours = Integrator(plain, n_bins=25, split=split, range=limits)(spoilt[None])
    expected = Integrator(masked, n_bins=25, split=split, range=limits)(frame[None])

    np.testing.assert_allclose(ours, expected, rtol=1e-6)
