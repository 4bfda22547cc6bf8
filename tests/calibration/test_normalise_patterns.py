import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.normalise import METHODS, normalise

PATTERNS = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 40)),
    elements=st.floats(0.125, 1000, width=32),
).filter(lambda p: (np.ptp(p, axis=1) > 0.1).all())


@given(PATTERNS)
def test_minmax_spans_zero_to_one(patterns):
    scaled = normalise(patterns, "minmax")

    assert scaled.dtype == np.float32
    assert (scaled.min(axis=1) == 0).all()
    assert (scaled.max(axis=1) == 1).all()
    np.testing.assert_array_equal(np.argmax(scaled, axis=1), np.argmax(patterns, axis=1))


@given(PATTERNS, st.floats(0.01, 10))
def test_the_area_is_one_along_any_axis(patterns, step):
    axis = step * np.arange(patterns.shape[1]) ** 1.5

    scaled = normalise(patterns, "area", axis=axis)

    np.testing.assert_allclose(np.trapezoid(scaled, axis), 1, rtol=1e-5)
    np.testing.assert_allclose(np.trapezoid(normalise(patterns, "area")), 1, rtol=1e-5)


@given(PATTERNS, st.sampled_from(METHODS), st.data())
def test_a_pattern_does_not_depend_on_its_batch(patterns, method, data):
    patterns[:, 0] = np.nan if patterns.shape[1] > 3 else patterns[:, 0]
    monitor = np.arange(1.0, 1 + len(patterns))
    cut = data.draw(st.integers(1, len(patterns)))
    if method == "minmax" and not (np.nanmax(patterns, 1) > np.nanmin(patterns, 1)).all():
        return

    whole = normalise(patterns, method, monitor=monitor)

    parts = [
        normalise(patterns[rows], method, monitor=monitor[rows])
        for rows in (slice(cut), slice(cut, None))
        if len(patterns[rows])
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_empty_bins_stay_empty_and_do_not_count():
    pattern = np.array([np.nan, 2, 4, np.nan, 8])

    np.testing.assert_allclose(normalise(pattern, "minmax"), [np.nan, 0, 1 / 3, np.nan, 1])
    np.testing.assert_allclose(normalise(pattern, "area"), pattern / 15)
    np.testing.assert_allclose(normalise(pattern, "monitor", monitor=2.0), pattern / 2)
    np.testing.assert_array_equal(normalise(pattern, "none"), pattern)


def test_each_pattern_is_divided_by_its_own_monitor():
    scaled = normalise(np.ones((2, 3)), "monitor", monitor=[2, 4])

    assert scaled.tolist() == [[0.5] * 3, [0.25] * 3]


@pytest.mark.parametrize(
    ("patterns", "method", "options", "message"),
    [
        (np.ones((2, 5)), "zscore", {}, "'zscore' is unknown; known: none, minmax, area, monitor"),
        (np.ones((2, 5)), "minmax", {}, "constant"),
        (np.array([[1, 2, 3], [4, 4, 4]]), "minmax", {}, "constant"),
        (np.full(5, np.nan), "minmax", {}, "without a finite bin"),
        (np.array([0, 1, np.inf]), "minmax", {}, "without a finite bin"),
        (np.zeros(5), "area", {}, "its area is not positive"),
        (-np.ones(5), "area", {}, "its area is not positive"),
        (np.full(5, np.nan), "area", {}, "its area is not positive"),
        (np.ones(5), "area", {"axis": np.arange(4)}, r"axis: shape \(4,\) for 5 bins"),
        (np.ones(5), "monitor", {}, "monitor: is missing"),
        (np.ones((2, 5)), "monitor", {"monitor": [1, 2, 3]}, "monitor: shape"),
        (np.ones((2, 5)), "monitor", {"monitor": [1, 0]}, "monitor: must be positive"),
        (np.ones((2, 5)), "monitor", {"monitor": [1, np.nan]}, "monitor: must be positive"),
        (np.ones((2, 5, 1)), "none", {}, "pattern: "),
    ],
)
def test_bad_input_is_refused(patterns, method, options, message):
    with pytest.raises(CalibrationError, match=message):
        normalise(patterns, method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_no_patterns_give_none(method):
    assert normalise(np.empty((0, 5)), method, monitor=[]).shape == (0, 5)
