import json

import h5py
import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.series import read_series
from phasewatch.models.units import unit_of

X = np.linspace(1, 9, 50)
Y = np.random.default_rng(0).random((4, 50), np.float32)


def write_npz(path, **changes):
    keys = {"x": X, "intensity": Y, "x_name": "q (1/A)"} | changes
    np.savez(path, **{k: v for k, v in keys.items() if v is not None})
    return path


def test_npz(tmp_path):
    path = write_npz(tmp_path / "s.npz", order=np.array([30, 35, 40, 45]), order_name="T (C)")
    series = read_series(path)
    assert np.array_equal(series.axis, X)
    assert np.array_equal(series.intensity, Y)
    assert series.intensity.dtype == np.float32
    assert (series.unit, series.order_name, series.source) == ("q_A^-1", "T (C)", "s.npz")
    assert series.order.tolist() == [30, 35, 40, 45]
    assert series.order.dtype == np.float64
    assert series.ids.tolist() == [0, 1, 2, 3]
    assert (series.baseline, series.normalise) == ({"method": "none"}, "none")
    assert len(series) == 4


def test_digest_is_of_the_patterns_alone(tmp_path):
    a = read_series(write_npz(tmp_path / "a.npz"))
    b = read_series(write_npz(tmp_path / "b.npz", order=np.arange(4)), unit="2th_deg")
    c = read_series(write_npz(tmp_path / "c.npz", intensity=Y + 1))
    assert a.digest == b.digest != c.digest
    assert b.unit == "2th_deg"


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("q (1/A)", "q_A^-1"),
        ("q (Å^-1)", "q_A^-1"),
        ("q_A^-1", "q_A^-1"),
        ("Q (1/angstrom)", "q_A^-1"),
        ("q (1/nm)", "q_nm^-1"),
        ("q_nm^-1", "q_nm^-1"),
        ("2theta (deg)", "2th_deg"),
        ("2th_deg", "2th_deg"),
        ("Two Theta", "2th_deg"),
        ("2theta (rad)", None),
        ("d (A)", None),
        ("q", None),
        ("", None),
    ],
)
def test_units(name, unit):
    assert unit_of(name) == unit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "key 'x' is missing"),
        ({"intensity": None}, "key 'intensity' is missing"),
        ({"x": X[:-1]}, r"axis has shape \(49,\), the patterns 50 points"),
        ({"x": X[::-1]}, "the axis must have 2 or more finite values that increase"),
        ({"x": np.where(X > 5, np.nan, X)}, "the axis must"),
        ({"x": np.round(X)}, "the axis must"),
        ({"intensity": Y[0]}, r"intensity: shape \(50,\)"),
        ({"intensity": Y[:0]}, "no pattern"),
        ({"order": np.arange(3)}, r"order: shape \(3,\) for 4 patterns"),
        ({"order": np.array(["a", "b", "c", "d"])}, "order: numbers wanted"),
        ({"intensity": np.array([["a"]])}, "must be numbers"),
        ({"x_name": "channel"}, "unit is not known; give one of 2th_deg, q_nm"),
        ({"x_name": None}, "unit is not known"),
        ({"intensity": np.array([{"evil": 1}], object)}, "cannot be read: Object arrays"),
    ],
)
def test_bad_npz(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message) as error:
        read_series(write_npz(tmp_path / "bad.npz", **changes))
    assert "bad.npz" in str(error.value)


@pytest.mark.parametrize("cut", [0, 10, 900, -30])
def test_truncated_npz(tmp_path, cut):
    path = write_npz(tmp_path / "bad.npz")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"bad\.npz"):
        read_series(path)


def test_corrupt_npz(tmp_path):
    path = write_npz(tmp_path / "bad.npz")
    content = bytearray(path.read_bytes())
    content[700] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.npz: cannot be read"):
        read_series(path)


def test_not_a_series(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"a.pkl: not a series: .npz"):
        read_series(tmp_path / "a.pkl")
    with pytest.raises(ModelError, match="no such file or folder"):
        read_series(tmp_path / "none.npz")
    with pytest.raises(ModelError, match="unit 'deg' is not one of"):
        read_series(tmp_path / "none.npz", unit="deg")


def write_xy(path, y, header="", x=X):
    rows = "".join(f"{a:.9E}  {b:.9E}\n" for a, b in zip(x, y, strict=True))
    path.write_text(header + rows)


def test_xy_folder_in_natural_order(tmp_path):
    for i in (10, 9, 1):
        write_xy(tmp_path / f"map_{i}.xy", Y[0] + i, "# == calibration ==\n#\n# q_nm^-1\t I\n")
    series = read_series(tmp_path)
    assert series.unit == "q_nm^-1"
    np.testing.assert_allclose(series.intensity, Y[0] + np.array([[1], [9], [10]]), rtol=1e-6)
    np.testing.assert_allclose(series.axis, X, rtol=1e-9)


def test_xy_with_a_bare_header(tmp_path):
    header = "".join(f"line {i}, 1 2\n" for i in range(22)) + "1234\n\n  two theta   intensity\n"
    write_xy(tmp_path / "a.xy", Y[0], header)
    series = read_series(tmp_path)
    assert series.unit == "2th_deg"
    np.testing.assert_allclose(series.intensity[0], Y[0], rtol=1e-6)
    assert read_series(tmp_path, unit="q_A^-1").unit == "q_A^-1"


def test_xy_errors(tmp_path):
    with pytest.raises(ModelError, match=r"no \.xy file"):
        read_series(tmp_path)
    (tmp_path / "series.npz").touch()  # as `phasewatch simulate` names it
    with pytest.raises(ModelError, match=r"no \.xy file in it; did you mean .*series.npz\?"):
        read_series(tmp_path)
    write_xy(tmp_path / "a.xy", Y[0])
    write_xy(tmp_path / "b.xy", Y[0], x=X + 0.1)
    with pytest.raises(ModelError, match=r"b.xy: its axis differs from that of a.xy"):
        read_series(tmp_path)
    write_xy(tmp_path / "b.xy", Y[0][:-1], x=X[:-1])
    with pytest.raises(ModelError, match=r"b.xy: its axis differs"):
        read_series(tmp_path)
    (tmp_path / "b.xy").write_text("1 2\n3 x\n")
    with pytest.raises(ModelError, match=r"b.xy line 2: not a row of numbers"):
        read_series(tmp_path)
    (tmp_path / "b.xy").write_text("1 2\n3\n")
    with pytest.raises(ModelError, match=r"b.xy line 2: 1 columns"):
        read_series(tmp_path)
    (tmp_path / "b.xy").write_bytes(b"\x00\xff\n" * 3)
    with pytest.raises(ModelError, match=r"b.xy: no row of numbers"):
        read_series(tmp_path)


def write_result(path, *, group="/entry/patterns", start=None, unit="q_nm^-1", **changes):
    with h5py.File(path, "w") as f:
        g = f.create_group(group)
        g["intensity"] = changes.get("intensity", Y)
        g["axis"] = X
        g["axis"].attrs["unit"] = unit
        g.attrs["signal"] = "intensity"
        g.attrs["axes"] = ["seq", "axis"]
        f["/entry/frame/id"] = changes.get("ids", np.array([7, 8, 10, 11]))
        f["/entry/frame/seq"] = changes.get("seq", np.array([0, 1, 3, 4]))
        if start is not None:
            f["/entry/provenance/start"] = start
    return path


def test_result_file(tmp_path):
    settings = {"baseline": {"method": "asls", "lam": 1e5}, "normalise": "minmax", "other": 1}
    path = write_result(tmp_path / "r.nxs", start=json.dumps({"settings": settings}))
    series = read_series(path)
    assert series.unit == "q_nm^-1"
    assert series.ids.tolist() == [7, 8, 10, 11]
    assert series.index.tolist() == [0, 1, 3, 4]
    assert series.baseline == settings["baseline"]
    assert series.normalise == "minmax"
    assert np.array_equal(series.intensity, Y)
    assert np.array_equal(series.axis, X)


def test_hdf5_of_others(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        g = f.create_group("/scan/data")
        g["counts"], g["q"] = Y.astype(np.float64), X
        g["q"].attrs["units"] = "1/angstrom"
        g.attrs["signal"], g.attrs["axes"] = "counts", ["frame", "q"]
    series = read_series(f"{path}#/scan/data")
    assert (series.unit, series.normalise) == ("q_A^-1", "none")
    assert series.intensity.dtype == np.float32
    with pytest.raises(ModelError, match=r"a.h5: no NXdata group /entry/patterns"):
        read_series(path)
    with pytest.raises(ModelError, match="no NXdata group /scan/data/q"):
        read_series(f"{path}#/scan/data/q")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "{"}, "start: not the JSON text"),
        ({"start": "[]"}, "start: not the JSON text"),
        ({"start": '{"settings": {"baseline": 3}}'}, "baseline is not a table"),
        ({"unit": "furlong"}, "unit is not known"),
        ({"ids": np.arange(3)}, "ids: shape"),
        ({"intensity": Y[:, :-1]}, "the axis has shape"),
        ({"intensity": Y[:0], "ids": np.arange(0)}, "no pattern"),
    ],
)
def test_bad_result_files(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message) as error:
        read_series(write_result(tmp_path / "r.nxs", **changes))
    assert "r.nxs" in str(error.value)


@pytest.mark.parametrize("cut", [0, 100, 1500])
def test_truncated_hdf5(tmp_path, cut):
    path = write_result(tmp_path / "r.nxs")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"r\.nxs: cannot be read"):
        read_series(path)


def test_hdf5_without_a_signal(tmp_path):
    path = write_result(tmp_path / "r.nxs")
    with h5py.File(path, "a") as f:
        del f["/entry/patterns/intensity"]
    with pytest.raises(ModelError, match="signal /entry/patterns/intensity is missing"):
        read_series(path)


def test_real_files(data_dir):
    expected = {
        "nacl_crcl3_heating": ("q_A^-1", (133, 2073), "T (C)"),
        "cucl2_na2se2_heating": ("2th_deg", (215, 3200), "frame index on heating"),
        "mgmn2o4_yocl_gradient": ("q_A^-1", (228, 1007), "position (mm) along thermal gradient"),
    }
    for name, (unit, shape, order_name) in expected.items():
        series = read_series(data_dir / "series" / f"{name}.npz")
        assert (series.unit, series.intensity.shape, series.order_name) == (unit, shape, order_name)
    xy = read_series(data_dir / "xy_map")
    assert (xy.unit, len(xy)) == ("2th_deg", 9)
    assert xy.axis[0] == 7.882808091e-03


def test_a_result_file_with_half_an_item_gives_the_whole_ones(tmp_path):
    series = read_series(write_result(tmp_path / "live.nxs", seq=np.array([0, 1])))
    assert series.ids.tolist() == [7, 8]
    np.testing.assert_array_equal(series.intensity, Y[:2])
