import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.gaps import bridge, fault
from phasewatch.models.regrid import regrid

NAN = np.nan


def test_empty_bins_are_bridged():
    y = np.array([[NAN, 1, NAN, NAN, 4, 5, np.inf, 7, NAN, 8], np.arange(10)], np.float32)
    whole = bridge(y)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole[0], [1, 1, 2, 3, 4, 5, 6, 7, 7.5, 8])
    assert np.array_equal(whole[1], y[1])
    assert np.isnan(y[0, 0])  # the input is left as it was


def test_half_a_pattern_is_enough():
    y = np.array([0, NAN, 2, NAN], np.float32)
    assert fault(y) is None
    y[2] = NAN
    assert fault(y) == "only 1 of 4 bins have a value"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ([NAN] * 4, "pattern 1: only 0 of 4 bins have a value"),
        ([np.inf, -np.inf, NAN, 1], "pattern 1: only 1 of 4"),
        ([3, 3, 3, NAN], "pattern 1: all bins are 3"),
    ],
)
def test_unusable(pattern, message):
    with pytest.raises(ModelError, match=message):
        bridge(np.array([[1, 2, 3, 4], pattern], np.float32))


def test_shape():
    with pytest.raises(ModelError, match="not shape"):
        bridge(np.zeros(4, np.float32))


def test_regrid():
    x = np.arange(5.0)
    y = np.stack([x**2, 2 * x]).astype(np.float32)
    out = regrid(y, x, np.array([-0.5, 0.5, 1, 3.5, 4.5]))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out[0], [0, 0.5, 1, 12.5, 16])
    np.testing.assert_allclose(out[1], [0, 1, 2, 7, 8])
    assert regrid(y[:0], x, x).shape == (0, 5)


def test_regrid_does_not_extrapolate():
    x = np.arange(5.0)
    with pytest.raises(ModelError, match="the patterns reach from 0 to 4, the model needs 0 to 6"):
        regrid(np.zeros((1, 5), np.float32), x, np.linspace(0, 6, 4))
    with pytest.raises(ModelError, match="shape"):
        regrid(np.zeros((1, 4), np.float32), x, x)
