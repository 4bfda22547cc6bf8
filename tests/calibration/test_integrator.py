import json
from dataclasses import replace

import numpy as np
import pyFAI
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.calibration import Calibration, CalibrationError, Integrator

SPLITS = ("no", "bbox", "full")
UNITS = ("2th_deg", "q_nm^-1", "q_A^-1")


@st.composite
def experiments(draw):
    """A PONI file's text, and a calibration's images and frames as a seed makes them."""
    angle = st.floats(-0.6, 0.6)
    config = {
        "pixel1": draw(st.floats(5e-5, 2e-4)),
        "pixel2": draw(st.floats(5e-5, 2e-4)),
        "orientation": draw(st.integers(1, 4)),
    }
    fields = {
        "poni_version": 2.1,
        "Detector": "Detector",
        "Detector_config": json.dumps(config),
        "Distance": draw(st.floats(0.01, 0.3)),
        "Poni1": draw(st.floats(-0.02, 0.02)),
        "Poni2": draw(st.floats(-0.02, 0.02)),
        "Rot1": draw(angle),
        "Rot2": draw(angle),
        "Rot3": draw(angle),
        "Wavelength": draw(st.floats(2e-11, 2e-10)),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(5, 40)), draw(st.integers(5, 40)))
    images = {"mask": rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))}
    if draw(st.booleans()):
        images["dark"] = rng.uniform(0, 5, shape).astype(np.float32)
    if draw(st.booleans()):
        images["flat"] = rng.uniform(0.5, 1.5, shape)
        images["flat"][rng.random(shape) < 0.05] = np.nan
    options = {
        "unit": draw(st.sampled_from(UNITS)),
        "split": draw(st.sampled_from(SPLITS)),
        "n_bins": draw(st.integers(1, 60)),
    }
    polarization = draw(st.sampled_from([None, 0.99, 0.0, -0.5]))
    return (
        "\n".join(f"{k}: {v}" for k, v in fields.items()),
        shape,
        images,
        options,
        polarization,
        rng,
    )


def integrate_with_pyfai(path, image, mask, images, options, polarization, limits=None):
    ai = pyFAI.load(str(path))
    ai.detector.shape = ai.detector.max_shape = image.shape
    flat = images.get("flat")
    result = ai.integrate1d(
        image,
        options["n_bins"],
        unit=options["unit"],
        method=(options["split"], "csr", "cython"),
        mask=mask if flat is None else mask | ~np.isfinite(flat),
        dark=images.get("dark"),
        flat=flat,
        polarization_factor=polarization,
        correctSolidAngle=True,
        radial_range=limits,
    )
    return result.radial, np.where(result.count > 0, result.intensity, np.nan)


def assert_equal_patterns(ours, theirs):
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    scale = np.nanmax(np.abs(theirs), initial=1e-30)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * scale, equal_nan=True)


@pytest.fixture(scope="module")
def poni_path(tmp_path_factory):
    return tmp_path_factory.mktemp("geometry") / "random.poni"


@settings(deadline=None, max_examples=30)
@given(experiment=experiments(), dtype=st.sampled_from(["u2", ">u2", "<i4", "f4", ">f8"]))
def test_patterns_and_axis_equal_pyfais(poni_path, experiment, dtype):
    text, shape, images, options, polarization, rng = experiment
    poni_path.write_text(text)
    frame = rng.poisson(200, shape).astype(dtype)
    calibration = Calibration.load(poni_path, **images, polarization=polarization)

    axis, theirs = integrate_with_pyfai(
        poni_path, frame.astype(np.float32), images["mask"], images, options, polarization
    )
    for engine in ("numba", "pyfai", "auto"):
        integrator = Integrator(calibration, **options, engine=engine)
        (ours,) = integrator(frame[np.newaxis])

        assert ours.dtype == np.float32
        np.testing.assert_array_equal(integrator.axis, axis)
        assert integrator.axis.dtype == np.float64
        np.testing.assert_array_equal(integrator.valid, np.isfinite(theirs))
        assert_equal_patterns(ours, theirs)


@settings(deadline=None, max_examples=20)
@given(
    experiment=experiments(),
    kind=st.sampled_from(["i4", "f4", "f8", ">i2"]),
    bad_share=st.sampled_from([0.01, 0.5, 0.95]),
)
def test_pixels_invalid_in_one_frame_equal_masked_ones(poni_path, experiment, kind, bad_share):
    text, shape, images, options, polarization, rng = experiment
    poni_path.write_text(text)
    saturation = 4095
    frame = rng.poisson(200, shape).astype(kind)
    bad = rng.random(shape) < bad_share
    flags = [-1, -7, 4095, 5000] + ([np.nan, np.inf, -np.inf] if "f" in kind else [])
    frame[bad] = rng.choice(flags, bad.sum())
    calibration = Calibration.load(
        poni_path, **images, polarization=polarization, saturation=saturation
    )
    wide = Integrator(calibration, **{**options, "n_bins": 100}, engine="pyfai")
    margin = 0.1 * np.ptp(wide.axis) + 0.01
    limits = (wide.axis[0] - margin, wide.axis[-1] + margin)  # pyFAI's own follow the mask

    # Not all of the bad ones, so that there is a pattern.
    frame[~calibration.mask & bad & (np.cumsum(~calibration.mask).reshape(shape) == 1)] = 10
    mask = images["mask"] | ~((frame >= 0) & (frame < saturation))
    plain = np.where(mask, 0, frame).astype(np.float32)
    _, theirs = integrate_with_pyfai(poni_path, plain, mask, images, options, polarization, limits)
    for engine in ("numba", "pyfai"):
        (ours,) = Integrator(calibration, **options, engine=engine, range=limits)(frame[None])
        assert_equal_patterns(ours, theirs)


@pytest.fixture
def calibration(write_poni):
    rng = np.random.default_rng(0)
    return Calibration.load(
        write_poni(), mask=rng.random((30, 40)) < 0.1, polarization=0.99, saturation=4095
    )


@pytest.fixture
def frames():
    return np.random.default_rng(1).poisson(100, (4, 30, 40))


@pytest.mark.parametrize(
    "dtype", ["u1", "i2", "u2", ">u2", ">i4", "u4", "i8", ">u8", "f2", ">f4", "f8", "longdouble"]
)
def test_the_type_and_layout_of_the_counts_do_not_matter(calibration, frames, dtype):
    integrator = Integrator(calibration, n_bins=50)
    frames = np.minimum(frames, 255)
    expected = integrator(frames)

    counts = frames.astype(dtype)
    unaligned = np.frombuffer(b"\0" + counts.tobytes(), np.uint8)[1:].view(counts.dtype)
    layouts = {
        "contiguous": counts,
        "columns first": np.asfortranarray(counts),
        "every second": np.repeat(counts, 2, axis=2)[..., ::2],
        "backwards": np.flip(np.flip(counts, (1, 2)).copy(), (1, 2)),
        "unaligned": unaligned.reshape(counts.shape),
    }
    for name, layout in layouts.items():
        np.testing.assert_array_equal(integrator(layout), expected, err_msg=name)


def test_boolean_frames_count_hits(calibration, frames):
    integrator = Integrator(calibration, n_bins=50)

    np.testing.assert_array_equal(integrator(frames > 100), integrator((frames > 100) * 1))


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
@pytest.mark.parametrize("n", [1, 3, 6, 13])
@pytest.mark.parametrize("split", SPLITS)
def test_a_pattern_does_not_depend_on_its_batch(calibration, split, n, dtype):
    integrator = Integrator(calibration, n_bins=50, split=split)
    frames = np.random.default_rng(5).poisson(100, (n, 30, 40)).astype(dtype)
    frames[2 % n, :5] = 5000

    whole = integrator(frames)

    assert whole.shape == (n, 50)
    np.testing.assert_array_equal(whole, np.concatenate([integrator(f[None]) for f in frames]))
    assert integrator(frames[:0]).shape == (0, 50)


def test_the_frame_is_not_changed(calibration, frames):
    frames[0, 0, 0] = -5
    before = frames.copy()
    for engine in ("numba", "pyfai"):
        Integrator(calibration, n_bins=9, engine=engine)(frames)
        np.testing.assert_array_equal(frames, before)
    frames.setflags(write=False)
    Integrator(calibration, n_bins=9)(frames)


@pytest.mark.parametrize("n", [1, 4, 9])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "i8"])
def test_sums_of_counts_are_exact(write_poni, dtype, n):
    shape = (300, 310)  # with one bin, 16-bit counts of all pixels exceed 32 bits
    integrator = Integrator(Calibration.load(write_poni(), shape=shape), n_bins=1)
    largest = min(np.iinfo(dtype).max, 2**33)
    frames = np.random.default_rng(2).integers(largest // 2, largest, (n, *shape), dtype)

    patterns = integrator(frames)

    (norm,) = integrator._integrate.plan.weights[0]
    totals = [sum(frame.ravel().tolist()) for frame in frames]
    np.testing.assert_array_equal(patterns[:, 0], np.float32(np.array(totals, float) / norm))


@pytest.mark.parametrize("split", ["bbox", "full"])
def test_what_little_is_left_of_a_bin_is_weighed_exactly(calibration, split):
    integrator = Integrator(calibration, n_bins=50, split=split)
    plan, shares = integrator._integrate.plan, integrator._integrate.shares
    pixels = np.repeat(np.arange(1200), np.repeat(plan.entries, 8))
    smallest = np.argmin(np.where(shares > 0, shares, 1))
    pixel, bin_ = pixels[smallest], plan.bins[smallest]
    frame = np.full(1200, 1000, np.int32)
    frame[pixels[(plan.bins == bin_) & (pixels != pixel)]] = -1

    (pattern,) = integrator(frame.reshape(1, 30, 40))

    assert shares[smallest] * plan.norm[pixel] < 1e-4 * plan.weights[0, bin_]
    assert pattern[bin_] == pytest.approx(1000 / plan.norm[pixel], rel=1e-6)


def test_a_bin_that_loses_all_its_pixels_in_one_frame_is_empty_in_that_frame(calibration, frames):
    integrator = Integrator(calibration, n_bins=12)
    single = integrator(frames)
    reach = np.zeros(frames[0].shape, bool)
    for pixel in np.ndindex(*reach.shape):  # the pixels that feed bin 3
        probe = np.zeros((1, *reach.shape), np.uint16)
        probe[0][pixel] = 1
        reach[pixel] = integrator(probe)[0, 3] > 0
    frames[1][reach] = 4095

    patterns = integrator(frames)

    assert np.isnan(patterns[1, 3])
    others = np.arange(12) != 3
    np.testing.assert_array_equal(patterns[:, others], single[:, others])
    assert np.isfinite(patterns[[0, 2, 3]]).all()


def test_without_saturation_only_negative_counts_are_invalid(calibration, frames):
    frames[0, 3, 3] = 1_000_000
    unlimited = replace(calibration, saturation=None)

    high = Integrator(unlimited, n_bins=20)(frames[:1])
    low = Integrator(calibration, n_bins=20)(frames[:1])

    assert np.nanmax(high) > 1000 > np.nanmax(low)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("value", [-1, 4095])
def test_a_frame_without_a_valid_pixel_is_an_error(calibration, frames, split, value):
    frames[2] = value
    integrator = Integrator(calibration, n_bins=20, split=split)

    with pytest.raises(CalibrationError, match="frame: all pixels invalid"):
        integrator(frames)


def test_a_named_detectors_own_gaps_are_left_out(write_poni):
    path = write_poni(Detector="Pilatus300k", Detector_config="{}")
    ai = pyFAI.load(str(path))
    frame = np.random.default_rng(3).poisson(50, ai.detector.shape)
    frame[ai.detector.mask != 0] = 7777

    (ours,) = Integrator(Calibration.load(path), n_bins=300)(frame[None])

    theirs = ai.integrate1d(frame, 300, unit="2th_deg", method=("no", "csr", "cython"))
    assert_equal_patterns(ours, theirs.intensity)


def test_a_range_cuts_the_axis(calibration, frames):
    whole = Integrator(calibration, n_bins=50)
    low, high = np.quantile(whole.axis, [0.3, 0.6])

    part = Integrator(calibration, n_bins=20, range=(low, high))

    assert low < part.axis[0] < part.axis[-1] < high
    assert np.isfinite(part(frames)).any()


def test_the_plan_cannot_be_changed_and_has_a_digest(calibration):
    integrator = Integrator(calibration, n_bins=50)
    for array in (integrator.axis, integrator.valid):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    variants = [
        {"n_bins": 51},
        {"n_bins": 50, "unit": "q_A^-1"},
        {"n_bins": 50, "split": "bbox"},
        {"n_bins": 50, "range": (2, 3)},
        {"n_bins": 50, "engine": "pyfai"},
    ]
    digests = {integrator.digest} | {Integrator(calibration, **v).digest for v in variants}
    assert len(digests) == 6
    assert Integrator(calibration, n_bins=np.int64(50)).digest == integrator.digest
    assert Integrator(replace(calibration, saturation=9), n_bins=50).digest not in digests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 0}, "n_bins: a whole number of at least 1 is needed, not 0"),
        ({"n_bins": 2.5}, "n_bins: "),
        ({"n_bins": float("nan")}, "n_bins: "),
        ({"unit": "degrees"}, r"unit: 'degrees' is unknown; known: 2th_deg, q_nm\^-1, q_A\^-1"),
        ({"split": "half"}, "split: 'half' is unknown; known: no, bbox, full"),
        ({"engine": "gpu"}, "engine: 'gpu' is unknown; known: auto, numba, pyfai"),
        ({"range": (1, 1)}, r"range: \(low, high\) in 2th_deg is expected"),
        ({"range": (0, float("nan"))}, "range: "),
        ({"range": (1, 2, 3)}, "range: "),
        ({"range": (80, 90)}, r"range: no valid pixel is in \(80.0, 90.0\) 2th_deg, they are in"),
    ],
)
def test_options_that_cannot_be_are_refused(calibration, options, message):
    with pytest.raises(CalibrationError, match=message):
        Integrator(calibration, **{"n_bins": 10, **options})


def test_a_geometry_without_an_axis_is_refused(write_poni):
    far = Calibration.load(write_poni(Distance="1e300"), shape=(30, 40))

    with pytest.raises(CalibrationError, match="axis: the geometry gives no increasing"):
        Integrator(far, n_bins=10)


def test_an_unknown_shape_is_refused(write_poni):
    with pytest.raises(CalibrationError, match="shape: the detector's is unknown"):
        Integrator(Calibration.load(write_poni()), n_bins=10)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 40, 30)), r"frame: shape \(1, 40, 30\), but \(n, 30, 40\) is needed"),
        (np.zeros((30, 40)), "frame: shape"),
        (np.zeros((1, 30, 40), complex), "frame: real numbers are expected, not complex128"),
        (np.full((1, 30, 40), None), "frame: real numbers are expected, not object"),
    ],
)
def test_frames_that_do_not_fit_are_refused(calibration, frames, message):
    with pytest.raises(CalibrationError, match=message):
        Integrator(calibration, n_bins=10)(frames)


@settings(deadline=None, max_examples=20)
@given(
    experiment=experiments(), kind=st.sampled_from(["u2", "i4", "f4"]), n=st.sampled_from([1, 4])
)
def test_variances_equal_pyfais_where_all_pixels_counted(poni_path, experiment, kind, n):
    text, shape, images, options, polarization, rng = experiment
    poni_path.write_text(text)
    frames = (1 + rng.poisson(3, (n, *shape))).astype(kind)
    calibration = Calibration.load(poni_path, **images, polarization=polarization)
    ai = pyFAI.load(str(poni_path))
    ai.detector.shape = ai.detector.max_shape = shape

    result = ai.integrate1d(
        frames[-1].astype(np.float32),
        options["n_bins"],
        unit=options["unit"],
        method=(options["split"], "csr", "cython"),
        mask=np.array(calibration.mask),
        dark=images.get("dark"),
        flat=None if calibration.flat is None else calibration.flat.astype(np.float32),
        polarization_factor=polarization,
        error_model="poisson",
    )

    theirs = np.where(result.count > 0, result.sem**2, np.nan)
    for engine in ("numba", "pyfai"):
        integrator = Integrator(calibration, **options, engine=engine)
        patterns, variances = integrator.with_variance(frames)
        np.testing.assert_array_equal(patterns, integrator(frames))
        assert_equal_patterns(variances[-1], theirs)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n", [2, 9])
def test_variances_are_those_of_the_formula_without_invalid_pixels(write_poni, split, n):
    rng = np.random.default_rng(4)
    images = {"dark": rng.uniform(0, 5, (30, 40)), "flat": rng.uniform(0.5, 1.5, (30, 40))}
    calibration = Calibration.load(
        write_poni(), mask=rng.random((30, 40)) < 0.1, **images, saturation=4095
    )
    integrator = Integrator(calibration, n_bins=50, split=split)
    frames = rng.poisson(0.3, (n, 30, 40)).astype(np.int32)
    frames[1, 5:9] = -1
    frames[1, 12, 3:30] = 4095

    patterns, variances = integrator.with_variance(frames)

    shares, pixels, norm = entries(integrator)
    for frame, variance in zip(frames, variances, strict=True):
        x = np.where((frame >= 0) & (frame < 4095), frame, 0).ravel()
        valid = ((frame >= 0) & (frame < 4095)).ravel()[pixels]
        total, weight = np.zeros(50), np.zeros(50)
        plan = integrator._integrate.plan
        inside = plan.bins < 50
        bins = plan.bins[inside]
        np.add.at(total, bins, (shares**2 * x[pixels])[inside])
        np.add.at(weight, bins, (shares * norm[pixels] * valid)[inside])
        assert_equal_patterns(variance, total / weight**2)
    np.testing.assert_array_equal(patterns, integrator(frames))
    for engine in ("numba", "pyfai"):
        other = Integrator(calibration, n_bins=50, split=split, engine=engine)
        for mine, frame in zip(variances, frames, strict=True):
            assert_equal_patterns(other.with_variance(frame[None])[1][0], mine)


def entries(integrator):
    """Return share, pixel of each entry of a plan, and the normalisation of each pixel."""
    plan, shares = integrator._integrate.plan, integrator._integrate.shares
    if shares is None:
        return np.ones(plan.bins.size), np.arange(plan.bins.size), plan.norm
    pixels = np.repeat(np.arange(len(plan.norm)), np.repeat(plan.entries, 8)[: len(plan.norm)])
    return shares.astype(float), pixels, plan.norm


def test_variances_are_those_that_noise_has(write_poni):
    shape = (60, 70)
    integrator = Integrator(Calibration.load(write_poni(), shape=shape), n_bins=8, split="bbox")
    frames = np.random.default_rng(6).poisson(0.7, (600, *shape)).astype(np.uint16)

    patterns, variances = integrator.with_variance(frames)

    seen, said = patterns.astype(float).var(axis=0, ddof=1), variances.mean(axis=0)
    np.testing.assert_allclose(seen, said, rtol=0.25)  # 4 sigma of 600 draws


@pytest.mark.parametrize("split", SPLITS)
def test_a_bin_that_counted_nothing_has_no_variance_and_an_empty_one_nan(calibration, split):
    integrator = Integrator(calibration, n_bins=2000, split=split)
    _, (variance,) = integrator.with_variance(np.zeros((1, 30, 40), np.uint16))
    np.testing.assert_array_equal(np.isnan(variance), ~integrator.valid)
    assert not variance[integrator.valid].any()
    with pytest.raises(CalibrationError, match="frame: all pixels invalid"):
        integrator.with_variance(np.full((1, 30, 40), -1))
