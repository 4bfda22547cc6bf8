import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.lambda_modules import ModuleLayout

P022 = [(0, 0, 0), (-2, 660, 0), (-2, 1317, 0)]


def test_the_layout_of_the_three_modules_at_p022():
    layout = ModuleLayout.from_translations(P022, [(516, 1554)] * 3)

    assert layout.canvas_shape == (1833, 1556)
    assert layout.origins == ((0, 2), (660, 0), (1317, 0))


@given(
    data=st.data(),
    n=st.integers(1, 4),
    x0=st.floats(-50, 50),
    y0=st.floats(-50, 50),
)
def test_each_pixel_is_where_the_rule_puts_it(data, n, x0, y0):
    size = st.integers(1, 5)
    shapes = [(data.draw(size), data.draw(size)) for _ in range(n)]
    xs = [x0 + data.draw(st.integers(-4, 4)) for _ in range(n)]
    ys = [y0 + 6 * i for i in range(n)]
    layout = ModuleLayout.from_translations(np.transpose([xs, ys]), shapes)
    modules = [
        np.arange(h * w, dtype=np.int16).reshape(h, w) + 100 * i for i, (h, w) in enumerate(shapes)
    ]

    frame = layout.assemble(modules)

    assert frame.dtype == np.int16
    columns = np.rint(xs).astype(int) - np.rint(xs).astype(int).min()
    rows = np.rint(ys).astype(int) - np.rint(ys).astype(int).min()
    height = max(r + h for r, (h, _) in zip(rows, shapes, strict=True))
    assert frame.shape[0] == height
    for row, column, module in zip(rows, columns, modules, strict=True):
        for (i, j), value in np.ndenumerate(module):
            assert frame[height - 1 - (row + i), column + j] == value
    assert (frame == -1).sum() == frame.size - sum(h * w for h, w in shapes)


def test_a_given_array_is_written_and_its_old_values_are_gone():
    layout = ModuleLayout.from_translations([(0, 0), (0, 4)], [(2, 3), (2, 3)])
    modules = [np.full((2, 3), 5, np.int16), np.full((2, 3), 6, np.int16)]
    out = np.full((6, 3), 99, np.int32)

    assert layout.assemble(modules, out=out) is out
    assert out[:, 0].tolist() == [6, 6, -1, -1, 5, 5]


def test_the_type_holds_every_count_and_the_gap():
    layout = ModuleLayout.from_translations([(0, 0)], [(1, 1)])

    for dtype, expected in ((np.int16, np.int16), (np.uint16, np.int32), (np.uint8, np.int16)):
        top = np.full((1, 1), np.iinfo(dtype).max, dtype)
        frame = layout.assemble([top])
        assert frame.dtype == expected
        assert frame[0, 0] == np.iinfo(dtype).max


def test_the_mask_has_the_gaps_and_every_bit_but_the_virtual_one():
    layout = ModuleLayout.from_translations([(0, 0), (1, 2)], [(1, 3), (1, 3)])
    bits = [np.array([[0, 1, 1 << 31]], np.uint32), np.array([[4, 0, (1 << 31) | 2]], np.uint32)]

    mask = layout.assemble_mask(bits)

    assert mask.dtype == bool
    assert mask.astype(int).tolist() == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 1]]
    virtual = layout.assemble_mask(bits, virtual=True)
    assert virtual.astype(int).tolist() == [[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("translations", "shapes", "message"),
    [
        ([(0, 0)], [(2, 2), (2, 2)], r"translation: shape \(1, 2\) for 2 modules"),
        ([], [], "translation"),
        ([0, 0], [(2, 2), (2, 2)], "translation"),
        ([(0, np.nan)], [(2, 2)], "translation: all values must be finite"),
        ([(0, 0), (0, 1e300)], [(2, 2)] * 2, "translation: all values must be finite"),
        ([(0, 0), (9e6, 9e6)], [(2, 2)] * 2, "translation: gives a frame of 9000002x9000002"),
        ([(0, 0), (0, 1)], [(2, 2)] * 2, "translation: two modules overlap"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(translations, shapes, message):
    with pytest.raises(CalibrationError, match=message):
        ModuleLayout.from_translations(translations, shapes)


def test_modules_and_arrays_that_do_not_fit_are_refused():
    layout = ModuleLayout.from_translations([(0, 0), (0, 4)], [(2, 3), (2, 3)])
    good = np.zeros((2, 3), np.int16)
    with pytest.raises(CalibrationError, match="module: shapes"):
        layout.assemble([good])
    with pytest.raises(CalibrationError, match="module: shapes"):
        layout.assemble([good, good.T])
    with pytest.raises(CalibrationError, match="pixel_mask: shapes"):
        layout.assemble_mask([good.astype(np.uint32)])
    for out in (np.zeros((5, 3), np.int16), np.zeros((6, 3), np.uint16), np.zeros((6, 3), np.int8)):
        with pytest.raises(CalibrationError, match="out: "):
            layout.assemble([good, good], out=out)
