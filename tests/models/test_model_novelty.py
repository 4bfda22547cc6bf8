import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.augment import Augmentation, noise_level, replicate
from phasewatch.models.novelty import Novelty, fit, reduce

POINTS = 600
RNG = np.random.default_rng(1)


def patterns(centres, n: int = 60, *, noise: float = 0.02, scale: float = 1.0) -> np.ndarray:
    index = np.arange(POINTS)
    rows = []
    for i in range(n):
        y = 0.3 * np.exp(-index / 300)
        for c in centres:
            y = y + np.exp(-(((index - c - 3 * i / n) / 6) ** 2))
        rows.append(scale * (y + RNG.normal(0, noise, POINTS)))
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def known():
    return patterns((100, 220, 430))


@pytest.fixture(scope="module")
def novelty(known):
    replicas = replicate(known, np.random.default_rng(0), Augmentation())
    group = np.arange(len(known))
    return fit(np.concatenate([known, replicas]), np.concatenate([group, group]))


def test_what_is_known_is_within_one(novelty, known):
    assert (novelty(known) <= 1).all()
    assert np.quantile(novelty(patterns((100, 220, 430))), 0.95) < 1


def test_scale_and_offset_are_not_novel(novelty):
    again = patterns((100, 220, 430))
    np.testing.assert_allclose(novelty(again), novelty(50 * again + 7), rtol=1e-3)


@pytest.mark.parametrize(
    "strange",
    [
        patterns((150, 300, 500)),
        patterns((100, 220, 430, 330)),
        RNG.normal(5, 1, (20, POINTS)).astype(np.float32),
        np.linspace(0, 1, POINTS, dtype=np.float32)[None],
    ],
    ids=["other peaks", "one more peak", "noise only", "a ramp"],
)
def test_what_is_not_known_is_beyond_one(novelty, strange):
    assert (novelty(strange) > 1).all()


def test_formula(novelty, known):
    x = reduce(known[7], novelty.mean.size) - novelty.mean
    t = novelty.axes.astype(np.float64) @ x
    s = np.sqrt((t**2 / novelty.variance).sum())
    r = np.linalg.norm(x - novelty.axes.T.astype(np.float64) @ t)
    expected = max(s / novelty.limits[0], r / novelty.limits[1])
    assert novelty(known[7:8])[0] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(novelty.axes @ novelty.axes.T, np.eye(len(novelty.axes)), atol=1e-5)


def test_reduced_pattern(known):
    x = reduce(known[0], 256)
    assert x.shape == (256,)
    assert x.mean() == pytest.approx(0, abs=1e-12)
    assert x.std() == pytest.approx(1)
    assert reduce(known[0], POINTS).shape == (POINTS,)


def test_patterns_without_noise_leave_room():
    x = np.tile(np.sin(np.arange(100)), (4, 1)).astype(np.float32)
    novelty = fit(x, np.arange(4))
    assert (novelty(x) < 1).all()
    assert (novelty(x + np.cos(np.arange(100, dtype=np.float32))) > 1).all()


def test_one_pattern_is_too_few(known):
    with pytest.raises(ModelError, match="at least two different patterns"):
        fit(known[:2], np.zeros(2, np.int64))


def test_statistics_by_name(novelty):
    again = Novelty.from_arrays(novelty.arrays())
    assert np.array_equal(again.axes, novelty.axes)
    with pytest.raises(ModelError, match="not "):
        Novelty.from_arrays({"mean": novelty.mean})


def test_noise_level():
    peaks = np.exp(-(((np.arange(2000) - 700) / 8) ** 2))
    y = (peaks + np.random.default_rng(0).normal(0, 0.05, 2000)).astype(np.float32)
    assert noise_level(y) == pytest.approx(0.05, rel=0.1)


def test_replicas_are_repeatable_and_resemble(known):
    a = replicate(known, np.random.default_rng(5), Augmentation())
    b = replicate(known, np.random.default_rng(5), Augmentation())
    assert a.dtype == np.float32
    assert np.array_equal(a, b)
    likeness = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, known, strict=True)]
    assert 0.5 < min(likeness) < max(likeness) < 1


def test_each_part_of_a_replica_can_be_left_out(known):
    none = Augmentation(shift=0, stretch=0, warp=0, noise=0)
    np.testing.assert_allclose(replicate(known, np.random.default_rng(0), none), known, rtol=1e-6)
    moved = replicate(known, np.random.default_rng(0), Augmentation(0.01, 0, 0, 6, 0))
    assert not np.allclose(moved, known, atol=0.05)
    warped = replicate(known, np.random.default_rng(0), Augmentation(0, 0, 0.3, 6, 0)) / known
    assert (warped > 0).all()
    assert np.abs(np.diff(np.log(warped), axis=1)).max() < 0.05
