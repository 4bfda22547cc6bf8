import numpy as np
import pyFAI
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.calibration import Calibration, CalibrationError
from phasewatch.calibration.cake import Cake

SPLITS = ("no", "bbox", "full")


@pytest.fixture
def calibration(write_poni):
    mask = np.random.default_rng(0).random((30, 40)) < 0.1
    return Calibration.load(write_poni(), mask=mask, polarization=0.99, saturation=4095)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    split=st.sampled_from(SPLITS),
    unit=st.sampled_from(["2th_deg", "q_nm^-1", "q_A^-1"]),
    n_bins=st.integers(2, 40),
    n_azimuth=st.integers(2, 40),
    centre=st.tuples(st.floats(-0.005, 0.008), st.floats(-0.005, 0.008)),
    rotations=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_a_map_equals_pyfais(
    tmp_path_factory, seed, split, unit, n_bins, n_azimuth, centre, rotations
):
    path = tmp_path_factory.getbasetemp() / "cake.poni"
    turned = "".join(f"Rot{i + 1}: {r}\n" for i, r in enumerate(rotations))
    path.write_text(
        "poni_version: 2\nDetector: Detector\n"
        'Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4}\n'
        f"Distance: 0.1\nPoni1: {centre[0]}\nPoni2: {centre[1]}\n{turned}Wavelength: 4.8e-11\n"
    )
    rng = np.random.default_rng(seed)
    shape = (30, 40)
    mask = rng.random(shape) < 0.1
    images = {"dark": rng.uniform(0, 5, shape).astype(np.float32), "flat": rng.uniform(1, 2, shape)}
    frame = rng.poisson(200, shape).astype(np.uint16)
    calibration = Calibration.load(path, mask=mask, polarization=0.99, **images)

    def compare():
        cake = Cake(calibration, n_bins=n_bins, n_azimuth=n_azimuth, unit=unit, split=split)
        (ours,) = cake(frame[None])
        ai = pyFAI.load(str(path))
        ai.detector.shape = ai.detector.max_shape = shape
        theirs = ai.integrate2d(
            frame,
            n_bins,
            n_azimuth,
            unit=unit,
            method=(split, "csr", "cython"),
            mask=mask,
            polarization_factor=0.99,
            **images,
        )
        np.testing.assert_array_equal(cake.axis, theirs.radial)
        np.testing.assert_array_equal(cake.azimuth, theirs.azimuthal)
        np.testing.assert_array_equal(np.isfinite(ours), theirs.count > 0)
        np.testing.assert_array_equal(cake.valid, theirs.count > 0)
        expected = np.where(theirs.count > 0, theirs.intensity, np.nan)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.nanmax(np.abs(expected)))

    # With full splitting pyFAI 2026.9 makes another plan of the same input about once in 40 times:
    # a pixel's share is then in another cell. The plan it repeats is the one to agree with.
    for attempt in range(3):
        try:
            return compare()
        except AssertionError:
            if split != "full" or attempt == 2:
                raise


@pytest.mark.parametrize("split", SPLITS)
def test_a_map_does_not_depend_on_its_batch_and_leaves_out_invalid_pixels(calibration, split):
    cake = Cake(calibration, n_bins=12, n_azimuth=6, split=split, azimuth_range=(-60, 100))
    frames = np.random.default_rng(1).poisson(100, (9, 30, 40)).astype(np.int32)
    frames[3, 4:9, 4:9] = -1
    frames[5, 20] = 4095

    maps = cake(frames)

    assert maps.shape == (9, 6, 12)
    np.testing.assert_array_equal(maps, np.concatenate([cake(f[None]) for f in frames]))
    assert np.nanmax(maps) < 4095 / np.nanmin(cake._sums.plan.norm)
    even = np.where(frames == -1, -1, 50)
    np.testing.assert_allclose(cake(even)[3], cake(even)[0], rtol=0.05, equal_nan=True)


def test_options_and_frames_that_cannot_be_are_refused(calibration):
    with pytest.raises(CalibrationError, match="n_azimuth: a whole number"):
        Cake(calibration, n_bins=5, n_azimuth=0)
    with pytest.raises(CalibrationError, match=r"azimuth_range: \(low, high\) in degrees"):
        Cake(calibration, n_bins=5, n_azimuth=5, azimuth_range=(3, 3))
    with pytest.raises(CalibrationError, match="range: no valid pixel is in"):
        Cake(calibration, n_bins=5, n_azimuth=5, range=(80, 90))
    cake = Cake(calibration, n_bins=5, n_azimuth=5)
    with pytest.raises(CalibrationError, match=r"all pixels invalid .* in frame 1 of 2"):
        cake(np.stack([np.zeros((30, 40)), np.full((30, 40), -1)]))
    assert cake.digest != Cake(calibration, n_bins=5, n_azimuth=6).digest


def test_a_pixel_with_infinite_shares_is_left_out(calibration, monkeypatch):
    from phasewatch.calibration import cake as module

    def spoilt(ai):
        ((_, engine),) = ((m, e.engine) for m, e in ai.engines.items() if m.algo_lower == "csr")
        shares, pixels, starts = engine.lut
        bad = np.flatnonzero(pixels == pixels[100])[0]
        broken = np.array(shares)
        broken[bad] = np.inf
        fake = type("Engine", (), {"lut": (broken, np.array(pixels), np.array(starts))})
        method = next(m for m in ai.engines if m.algo_lower == "csr")
        seen.append(int(pixels[100]))
        return entries_of(type("Ai", (), {"engines": {method: type("E", (), {"engine": fake})}}))

    seen, entries_of = [], module.entries_of
    plain = Cake(calibration, n_bins=12, n_azimuth=6, split="full")
    monkeypatch.setattr(module, "entries_of", spoilt)
    monkeypatch.setenv("PHASEWATCH_CACHE", "")
    cake = Cake(calibration, n_bins=12, n_azimuth=6, split="full")
    frame = np.full((1, 30, 40), 7.0)
    frame.ravel()[seen[0]] = -1  # as if it were invalid

    np.testing.assert_allclose(cake(np.full((1, 30, 40), 7.0)), plain(frame), rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(cake(frame * 0 + 7)[0]), cake.valid)
