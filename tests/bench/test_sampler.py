"""Counting statistics of the frame sampler."""

import numpy as np
import pytest
from scipy import stats

from phasewatch.bench.twin.sampler import sample


def draw(mean, n, **options):
    options = {"seed": 7, "frame": 0, "gap": -1, "ceiling": 4095, "dtype": "int16"} | options
    index = np.zeros(n, dtype=np.int32)
    weight = np.ones(n, dtype=np.float32)
    return sample(index, weight, np.array([mean], dtype=np.float32), **options)


@pytest.mark.parametrize("mean", [0.02, 0.3, 1.0, 5.0, 16.0, 40.0, 300.0])
def test_counts_are_poisson(mean):
    counts = draw(mean, 200_000)
    law = stats.poisson(float(np.float32(mean)))
    edges = np.unique(law.ppf(np.linspace(0.0, 1.0, 21)[1:-1]))
    seen = np.bincount(np.searchsorted(edges, counts, side="left"), minlength=len(edges) + 1)
    expected = np.diff(np.concatenate(([0.0], law.cdf(edges), [1.0]))) * counts.size
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_pixels_are_independent():
    counts = draw(1.0, 200_000).astype(float)
    for lag in (1, 2, 256, 1556):
        correlation = np.corrcoef(counts[:-lag], counts[lag:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(counts.size)


def test_a_frame_depends_on_its_seed_and_number_only():
    first = draw(2.0, 1000, frame=5)
    draw(2.0, 1000, frame=6)
    assert np.array_equal(first, draw(2.0, 1000, frame=5))
    assert not np.array_equal(first, draw(2.0, 1000, frame=6))
    assert not np.array_equal(first, draw(2.0, 1000, frame=5, seed=8))


def test_gaps_dead_pixels_and_the_ceiling():
    index = np.array([[0, -1], [1, 2]], dtype=np.int32)
    weight = np.array([[0, 1], [1, 1]], dtype=np.float32)
    table = np.array([50, 1e5, 3], dtype=np.float32)
    counts = sample(index, weight, table, seed=1, frame=0, gap=-1, ceiling=4095, dtype="int16")
    assert counts[0].tolist() == [0, -1]
    assert counts[1, 0] == 4095
    assert counts.dtype == np.int16
