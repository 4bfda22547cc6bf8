import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pybaselines import Baseline

from phasewatch.calibration.baseline import asls, estimate, methods
from phasewatch.calibration.errors import CalibrationError


def make_patterns(seed, n, n_bins):
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, n_bins)
    patterns = 5 * np.exp(-3 * x) + rng.poisson(20, (n, n_bins)) / 10
    for centre in rng.uniform(0, 1, 5):
        patterns += rng.uniform(0, 50, (n, 1)) * np.exp(-(((x - centre) / 0.01) ** 2))
    return patterns


def dense_asls(y, lam, p, n_iter):
    """The definition, with full matrices."""
    difference = np.diff(np.eye(len(y)), 2, axis=0)
    penalty = lam * difference.T @ difference
    w = np.ones(len(y))
    for _ in range(n_iter):
        z = np.linalg.solve(np.diag(w) + penalty, w * y)
        w = np.where(y > z, p, 1 - p)
    return z


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_bins=st.integers(3, 700),
    log_lam=st.floats(0, 6),
    p=st.floats(0.001, 0.5),
    n_iter=st.integers(1, 12),
)
def test_it_equals_pybaselines(seed, n_bins, log_lam, p, n_iter):
    (y,) = make_patterns(seed, 1, n_bins)
    lam = 10**log_lam

    ours = asls(y, lam=lam, p=p, n_iter=n_iter)

    # tol = -1: never stops early; its first solution is counted as iteration 0.
    theirs, _ = Baseline().asls(y, lam=lam, p=p, max_iter=n_iter - 1, tol=-1)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(y).max())


@pytest.mark.parametrize("n_bins", [3, 4, 5, 40])
def test_it_equals_the_definition(n_bins):
    (y,) = make_patterns(n_bins, 1, n_bins)

    baseline = asls(y, lam=100.0, p=0.01, n_iter=4)

    np.testing.assert_allclose(baseline, dense_asls(y, 100.0, 0.01, 4), atol=1e-9)


def test_the_defaults_are_those_of_the_thesis():
    (y,) = make_patterns(0, 1, 500)

    np.testing.assert_array_equal(asls(y), asls(y, lam=1e5, p=0.002, n_iter=10))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 19), data=st.data())
def test_a_baseline_does_not_depend_on_the_batch(seed, n, data):
    patterns = make_patterns(seed, n, 200).astype(np.float32)
    patterns[:, data.draw(st.integers(0, 199))] = np.nan
    cut = data.draw(st.integers(0, n))

    whole = asls(patterns)

    parts = np.concatenate([asls(patterns[:cut]), asls(patterns[cut:])])
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole, np.stack([asls(pattern) for pattern in patterns]))
    np.testing.assert_array_equal(whole, asls(np.asfortranarray(patterns)))


def test_empty_bins_are_bridged_and_stay_empty():
    y = np.linspace(1, 2, 50) + 30 * np.exp(-((np.arange(50) - 25.0) ** 2))
    gaps = [0, 1, 10, 11, 49]
    holed = y.copy()
    holed[gaps] = np.nan
    bridged = y.copy()
    bridged[:2], bridged[49] = y[2], y[48]

    baseline = asls(holed)

    assert np.flatnonzero(np.isnan(baseline)).tolist() == gaps
    inside = np.isfinite(baseline)
    np.testing.assert_allclose(baseline[inside], asls(bridged)[inside], rtol=1e-12)


def test_a_straight_line_and_zeros_are_their_own_baseline():
    np.testing.assert_allclose(asls(np.linspace(3, 7, 100)), np.linspace(3, 7, 100), rtol=1e-8)
    assert (asls(np.zeros((2, 100))) == 0).all()


@pytest.mark.parametrize(
    ("patterns", "options", "message"),
    [
        (np.full(10, np.nan), {}, "pattern: no bin is finite"),
        (np.stack([np.ones(10), np.full(10, np.nan)]), {}, "pattern: no bin is finite"),
        (np.ones(2), {}, "pattern: .* n_bins >= 3"),
        (np.ones((2, 2, 5)), {}, "pattern: "),
        (np.float64(3), {}, "pattern: "),
        (np.ones(10), {"lam": 0.0}, "lam: must be positive"),
        (np.ones(10), {"lam": np.nan}, "lam: must be positive"),
        (np.ones(10), {"p": 1.0}, "p: must be between 0 and 1"),
        (np.ones(10), {"n_iter": 0}, "n_iter: must be a whole number"),
        (np.ones(10), {"n_iter": 1.5}, "n_iter: must be a whole number"),
    ],
)
def test_bad_input_is_refused(patterns, options, message):
    with pytest.raises(CalibrationError, match=message):
        asls(patterns, **options)


@pytest.mark.parametrize("method", ["arpls", "snip", "modpoly", "rolling_ball"])
def test_other_methods_come_from_pybaselines(method):
    patterns = make_patterns(1, 3, 300)

    baselines = estimate(patterns, method)

    for pattern, baseline in zip(patterns, baselines, strict=True):
        np.testing.assert_array_equal(baseline, getattr(Baseline(), method)(pattern)[0])


def test_options_reach_the_method():
    (y,) = make_patterns(2, 1, 300)

    np.testing.assert_array_equal(estimate(y, lam=1e3), asls(y, lam=1e3))
    expected, _ = Baseline().arpls(y, lam=1e3)
    np.testing.assert_array_equal(estimate(y, "arpls", lam=1e3), expected)
    assert (estimate(y, "none") == np.zeros_like(y)).all()


def test_every_name_is_a_method_and_none_takes_a_set_of_patterns():
    assert list(methods())[:2] == ["none", "asls"]
    assert {"arpls", "airpls", "snip", "imodpoly", "beads"} <= set(methods())
    assert "collab_pls" not in methods()
    assert "kwargs" not in methods()["snip"]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("aslss", {}, "baseline method: 'aslss' is unknown; known: none, asls, .*arpls"),
        ("__init__", {}, "baseline method: '__init__' is unknown"),
        ("asls", {"lamda": 1}, "baseline asls: option 'lamda' is unknown; known: lam, p, n_iter"),
        ("arpls", {"p": 1}, "baseline arpls: option 'p' is unknown; known: lam"),
        ("none", {"lam": 1}, "baseline none: option 'lam' is unknown; known: none"),
        ("arpls", {"lam": -1.0}, "baseline method arpls: "),
    ],
)
def test_unknown_methods_and_options_are_refused(method, options, message):
    with pytest.raises(CalibrationError, match=message):
        estimate(np.ones(50), method, **options)
