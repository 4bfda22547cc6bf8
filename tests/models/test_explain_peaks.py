import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.explain.peaks import fractions, judge, read_peaks, share

AXIS = np.linspace(10, 20, 11)


@pytest.fixture
def file(tmp_path):
    """Write three patterns: a low peak at points 2 and 3, in the last a high one at 7."""
    low = np.zeros((3, 11), bool)
    low[:2, 2:4] = True
    high = np.zeros((3, 11), bool)
    high[2, 7] = True
    path = tmp_path / "peaks.npz"
    packed = {"low": np.packbits(low, axis=1), "high": np.packbits(high, axis=1)}
    np.savez(path, axis=AXIS, **packed)
    return path, low | high, packed


def test_read(file):
    path, regions, _ = file
    np.testing.assert_array_equal(read_peaks(path, axis=AXIS, index=np.arange(3)), regions)
    np.testing.assert_array_equal(read_peaks(path, axis=AXIS, index=np.array([0, 2])), regions[::2])


def test_fraction_chance_and_ratio():
    regions = np.zeros((2, 10), bool)
    regions[:, :2] = True
    importance = np.full((2, 10), -1.0, np.float32)
    found = share(importance, regions)
    assert found.figures() == {"fraction": 0.2, "chance": 0.2, "ratio": 1.0}
    importance[0, 0] = 3.0
    importance[0, 2:] = 0
    found = share(importance, regions)
    assert (found.fraction, found.ratio) == (6 / 14, pytest.approx(30 / 14))
    np.testing.assert_allclose(fractions(importance, regions), [1.0, 0.2])


def test_no_importance_has_no_fraction():
    regions = np.ones((1, 4), bool)
    assert share(np.zeros((1, 4), np.float32), regions).fraction is None
    assert np.isnan(fractions(np.zeros((1, 4), np.float32), regions)).all()
    assert share(np.ones((1, 4), np.float32), ~regions).ratio is None


def test_the_importance_for_a_patterns_own_class_is_judged(file):
    _, regions, _ = file
    importance = np.zeros((2, 3, 11), np.float32)
    importance[0, :2, 2] = 1  # on the peak, patterns 0 and 1, which are of class 0
    importance[1, :2, 5] = 9  # for the other class: does not count
    importance[1, 2, 2] = -3  # pattern 2: where a peak was, not where one is
    importance[1, 2, 7] = 1
    found = judge(importance, regions, np.array([0, 0, 1]))
    assert found["present"][0].fraction == 1.0
    assert found["present"][1].fraction == 0.25
    assert found["present"]["overall"].fraction == 0.5
    assert found["present"]["overall"].chance == pytest.approx(5 / 33)
    assert found["run"][1].fraction == 1.0
    assert found["run"][1].chance == pytest.approx(3 / 11)


def test_errors_name_the_file(file, tmp_path):
    path, _, packed = file
    for arguments, message in (
        ({"axis": AXIS + 1e-2}, "axis: not that of the series"),
        ({"axis": AXIS[:-1]}, "axis: not that of the series"),
        ({"index": np.array([0, 3])}, "3 patterns, but the series has number 3"),
    ):
        with pytest.raises(ModelError, match=f"peaks.npz: {message}"):
            read_peaks(path, **{"axis": AXIS, "index": np.arange(3)} | arguments)
    with pytest.raises(ModelError, match=r"none\.npz: no file"):
        read_peaks(tmp_path / "none.npz", axis=AXIS, index=np.arange(3))
    for arrays, message in (
        ({"axis": AXIS}, "keys low, high, other are missing"),
        (packed, "cannot be read: .*axis"),
        ({"axis": AXIS, "low": packed["low"][:, :1]}, "packed bits are expected"),
        ({"axis": AXIS, "low": packed["low"], "high": packed["high"][:2]}, "packed bits"),
        ({"axis": AXIS, "low": np.array([{}], object)}, "cannot be read"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ModelError, match=f"peaks.npz: .*{message}"):
            read_peaks(path, axis=AXIS, index=np.arange(3))
    path.write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"peaks\.npz: not an \.npz archive"):
        read_peaks(path, axis=AXIS, index=np.arange(3))
