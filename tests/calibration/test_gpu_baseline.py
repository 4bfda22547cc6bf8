"""The batched baseline in torch, on the CPU, against the CPU's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.calibration import CalibrationError, baseline
from phasewatch.calibration import normalise as normalising
from phasewatch.calibration.gpu.baseline import asls
from phasewatch.calibration.gpu.bridge import bridge
from phasewatch.calibration.gpu.normalise import normalise


def make_patterns(seed, n, n_bins):
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, n_bins)
    patterns = 5 * np.exp(-3 * x) + rng.poisson(20, (n, n_bins)) / 10
    for centre in rng.uniform(0, 1, 5):
        patterns += rng.uniform(0, 50, (n, 1)) * np.exp(-(((x - centre) / 0.01) ** 2))
    return patterns


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 4),
    n_bins=st.integers(3, 700),
    log_lam=st.floats(0, 7),
    p=st.floats(0.001, 0.5),
    n_iter=st.integers(1, 12),
    empty=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_it_equals_the_cpus(seed, n, n_bins, log_lam, p, n_iter, empty):
    patterns = make_patterns(seed, n, n_bins)
    holes = np.random.default_rng(seed).random(patterns.shape) < empty
    holes[:, seed % n_bins] = False
    patterns[holes] = np.nan
    options = {"lam": 10**log_lam, "p": p, "n_iter": n_iter}

    ours = asls(torch.from_numpy(patterns), **options).numpy()

    scale = np.nanmax(np.abs(patterns), initial=1.0)
    np.testing.assert_allclose(
        ours, baseline.asls(patterns, **options), rtol=0, atol=1e-6 * scale, equal_nan=True
    )


@pytest.mark.parametrize("n_bins", [1000, 4023, 4096, 4097])
def test_it_equals_the_cpus_at_full_length(n_bins):
    patterns = make_patterns(n_bins, 3, n_bins)

    ours = asls(torch.from_numpy(patterns)).numpy()

    # Measured: 8e-10 of the maximum at 4023 bins.
    np.testing.assert_allclose(ours, baseline.asls(patterns), atol=1e-8 * patterns.max())


def test_bins_on_the_baseline_may_weigh_either_way():
    """Every bin of these is a tie, decided by rounding."""
    flat = np.stack([np.zeros(500), np.full(500, 7.0), np.linspace(3, 900, 500)])

    ours = asls(torch.from_numpy(flat)).numpy()

    assert (ours[0] == 0).all()
    np.testing.assert_allclose(ours, flat, atol=1e-6 * 900)


def test_a_pattern_without_a_finite_bin_is_nan_and_alone():
    patterns = make_patterns(0, 3, 200)
    expected = asls(torch.from_numpy(patterns))
    patterns[1] = np.nan

    ours = asls(torch.from_numpy(patterns))

    assert ours[1].isnan().all()
    torch.testing.assert_close(ours[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-9)


def test_single_precision_patterns_are_computed_in_double():
    patterns = make_patterns(1, 2, 300).astype(np.float32)

    ours = asls(torch.from_numpy(patterns))

    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours, baseline.asls(patterns), atol=1e-8 * patterns.max())


@settings(deadline=None, max_examples=50)
@given(n_bins=st.integers(1, 30), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_bridges_are_straight_lines(n_bins, seed, share):
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(3, n_bins))
    patterns[rng.random(patterns.shape) < share] = rng.choice([np.nan, np.inf, -np.inf])

    bridged, finite = (t.numpy() for t in bridge(torch.from_numpy(patterns)))

    np.testing.assert_array_equal(finite, np.isfinite(patterns))
    index = np.arange(n_bins)
    for row, known, ours in zip(patterns, finite, bridged, strict=True):
        expected = np.interp(index, index[known], row[known]) if known.any() else 0.0
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-14)


def test_nothing_depends_on_data_so_that_it_can_be_compiled_or_captured():
    """Traced as one graph, without a break and without a guard on values."""
    patterns = torch.from_numpy(make_patterns(3, 2, 50))
    patterns[0, 5:9] = torch.nan
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def clean(y):
        return normalise(y - asls(y, n_iter=3), "minmax")[0]

    compiled = torch.compile(clean, backend=keep, fullgraph=True, dynamic=False)

    torch.testing.assert_close(compiled(patterns), clean(patterns), equal_nan=True)
    other = torch.rand(2, 50, dtype=torch.float64)
    torch.testing.assert_close(compiled(other), clean(other))
    assert len(graphs) == 1


@settings(deadline=None, max_examples=50)
@given(
    method=st.sampled_from(["minmax", "area", "none"]),
    n_bins=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_normalised_patterns_equal_the_cpus(method, n_bins, seed, share):
    rng = np.random.default_rng(seed)
    patterns = rng.normal(1, 1, (4, n_bins))
    patterns[rng.random(patterns.shape) < share] = np.nan
    patterns[3] = rng.choice([np.nan, 2.0])

    ours, possible = normalise(torch.from_numpy(patterns), method)

    assert ours.dtype == torch.float32
    for row, ok, pattern in zip(ours.numpy(), possible.tolist(), patterns, strict=True):
        try:
            expected = normalising.normalise(pattern, method)
        except CalibrationError:
            assert not ok
            assert np.isnan(row).all()
        else:
            assert ok
            np.testing.assert_allclose(row, expected, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("patterns", "options", "message"),
    [
        (torch.ones(2, 2), {}, "n_bins >= 3"),
        (torch.ones(10), {}, "n_bins >= 3"),
        (torch.ones(1, 10), {"lam": 0.0}, "lam: must be positive"),
        (torch.ones(1, 10), {"p": 1.0}, "p: must be between 0 and 1"),
        (torch.ones(1, 10), {"n_iter": 0}, "n_iter: must be a whole number"),
    ],
)
def test_bad_input_is_refused(patterns, options, message):
    with pytest.raises(CalibrationError, match=message):
        asls(patterns, **options)
    with pytest.raises(CalibrationError, match="normalise: 'max' is unknown"):
        normalise(patterns, "max")
