"""What contenders are judged by, on cases that can be worked out by hand."""

import numpy as np
import pytest

from phasewatch.bench.contest import metrics, pick

NONE = np.empty(0, np.int64)


def test_calibration_error_by_hand():
    # bins of 0.2: (0.8, 1]: 0.9 right, 0.9 wrong -> |0.5 - 0.9|; (0.4, 0.6]: 0.6 right -> 0.4
    p = np.array([[0.1, 0.9], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    truth = np.array([1, 1, 0, 1])
    expected = (2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.6)) / 4
    assert metrics.calibration_error(p, truth, bins=5) == pytest.approx(expected)


def test_calibration_error_of_the_certain():
    p = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    assert metrics.calibration_error(p, np.array([0, 1, 2, 2])) == 0
    assert metrics.calibration_error(p, np.array([1, 2, 0, 0])) == 1
    over = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], np.float32)
    assert metrics.calibration_error(over, np.array([0])) == pytest.approx(0, abs=1e-6)


def test_an_edge_belongs_to_the_bin_below():
    p = np.array([[0.5, 0.5], [0.51, 0.49]])
    # one bin each, errors of opposite sign: they would cancel in a common one
    found = metrics.calibration_error(p, np.array([0, 1]), bins=2)
    assert found == pytest.approx((0.5 + 0.51) / 2)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([0, 0, 1, 1], [2.0]),
        ([0, 1, 0, 1], [2.0]),  # zone of frames 1 and 2
        ([0, 1, 0, 0, 1, 1], [2.5]),
        ([0, 0, 0, 0], [4.0]),
        ([1, 1, 1, 1], [0.0]),
    ],
)
def test_boundary_of_two_classes(label, expected):
    label = np.array(label)
    assert metrics.boundaries(label, np.arange(len(label)), len(label), 2) == expected


def test_boundary_where_frames_are_missing():
    # frames 3 and 4 are unusable: the change is between 2 and 5
    assert metrics.boundaries(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 5]), 6, 2) == [4.0]


def test_boundaries_of_three_classes():
    label = np.array([0, 0, 1, 1, 1, 2])
    assert metrics.boundaries(label, np.arange(6), 6, 3) == [2.0, 5.0]


def test_error_in_frames_and_in_gpa():
    pressure = np.array([0.0, 1.0, 4.0, 9.0, 16.0])
    assert metrics.off([2.0], [3.0]) == 1
    assert metrics.off([2.0], [3.0], pressure) == 5
    assert metrics.off([2.5], [3.0], pressure) == 2.5
    assert metrics.off([5.0], [3.0], pressure) == 7  # past the last frame counts as the last
    assert metrics.off([1.0, 4.0], [2.0, 1.0]) == 2


def judged(label, probability, truth, seen=NONE, order=None, index=None):
    n = len(truth)
    return metrics.judge(
        np.array(label),
        probability,
        np.arange(n) if index is None else np.array(index),
        n=n,
        n_classes=2,
        truth_index=np.arange(n),
        truth=np.array(truth),
        seen=np.array(seen),
        order=order,
    )


def test_what_was_learnt_from_is_not_judged():
    truth = [0, 0, 0, 1, 1, 1]
    found = judged([0, 0, 1, 1, 1, 1], None, truth, seen=[0, 5])
    assert found["accuracy"] == 3 / 4
    assert found["n_judged"] == 4
    assert found["ece"] is None
    assert (found["boundary"], found["boundary_true"]) == ([2.0], [3.0])
    assert (found["error_frames"], found["error_order"]) == (1, None)
    everything = judged([0, 0, 1, 1, 1, 1], None, truth, seen=range(6))
    assert (everything["accuracy"], everything["n_judged"]) == (None, 0)


def test_unusable_patterns_do_not_shift_the_truth():
    p = np.eye(2)[[0, 1, 1]]
    found = judged([0, 1, 1], p, [0, 0, 0, 1, 1], index=[0, 3, 4], order=np.arange(5) * 2.0)
    assert found["accuracy"] == 1
    assert found["ece"] == 0
    assert found["confidence"] == 1
    assert found["boundary"] == [2.0]  # between 0 and 3
    assert found["error_order"] == 2.0


def test_every_tenth_clear_pattern():
    x = np.clip((np.arange(349) - 160) / 40, 0, 1)
    index = pick.every_tenth(x)
    assert index.tolist() == [*range(0, 161, 10), *range(200, 349, 10)][:31] or len(index) == 31
    assert set(index % 10) == {0}
    assert not ((x[index] >= 0.01) & (x[index] <= 0.99)).any()


def test_at_most_31_and_fewer_steps_in_a_short_run():
    long = pick.every_tenth((np.arange(2000) > 1000).astype(float))
    assert len(long) == 31
    assert (long[0], long[-1]) == (0, 1990)
    short = pick.every_tenth((np.arange(44) > 21).astype(float))
    steps = np.unique(np.diff(short))
    assert steps.tolist() == [4]
    assert min((short > 21).sum(), (short <= 21).sum()) >= pick.PER_CLASS


def test_evenly_spread_over_the_classes():
    label = np.repeat([0, 1, 2], [50, 4, 46])
    at = pick.evenly(label, 10)
    assert np.bincount(label[at]).tolist() == [4, 3, 3]
    assert at.max() < 100
    assert at[label[at] == 0].max() < 45  # the tenth next to the transition is left out
    assert at[label[at] == 2].min() >= 54 + 4
