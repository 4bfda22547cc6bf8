"""Mixtures of labelled windows."""

import numpy as np

from phasewatch.models.mixing import mix


def windows(label, length):
    """Return windows whose patterns hold ten times the class and the age of the pattern."""
    rows = [10 * k + np.arange(t, 0, -1) for k, t in zip(label, length, strict=True)]
    return np.concatenate(rows).astype(np.float32)[:, None] * np.ones((1, 3), np.float32)


def mixed(label, length, n_classes=2, portion=0.5):
    patterns = windows(label, length)
    rng = np.random.default_rng(0)
    found = mix(patterns, length, label, n_classes=n_classes, portion=portion, rng=rng)
    assert np.array_equal(patterns, windows(label, length))
    return found


def test_two_classes_mix_in_the_share_that_is_told():
    label, length = np.tile([0, 1], 60), np.repeat([1, 2], 60)
    found = mixed(label, length)
    np.testing.assert_allclose(found.share.sum(axis=1), 1, rtol=1e-6)
    kept = (found.share == np.eye(2)[label]).all(axis=1)
    assert 40 < kept.sum() < 80
    last = np.cumsum(length) - 1
    expected = 10 * found.share[:, 1] + 1
    np.testing.assert_allclose(found.patterns[last, 0], expected, rtol=1e-5)
    first = last[length == 2] - 1
    np.testing.assert_allclose(found.patterns[first, 0], expected[length == 2] + 1, rtol=1e-5)


def test_a_window_mixes_with_the_end_of_a_longer_one_and_not_with_a_shorter():
    label, length = np.tile([0, 1], 30), np.tile([2, 4], 30)
    found = mixed(label, length, portion=1.0)
    assert np.array_equal(found.share[1::2], np.eye(2)[label[1::2]])
    assert (found.share[::2, 1] > 0).all()
    last = np.cumsum(length)[::2] - 1
    expected = 10 * found.share[::2, 1] + 1
    np.testing.assert_allclose(found.patterns[last, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.patterns[last - 1, 0], expected + 1, rtol=1e-5)
    after = np.repeat(length, length) == 4
    assert np.array_equal(found.patterns[after], windows(label, length)[after])


def test_of_three_classes_none_is_mixed():
    label, length = np.tile([0, 1, 2], 9), np.ones(27, np.int64)
    found = mixed(label, length, n_classes=3, portion=1.0)
    assert np.array_equal(found.patterns, windows(label, length))
    assert np.array_equal(found.share, np.eye(3)[label])
