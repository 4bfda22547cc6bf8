"""The sources series, xy, hdf5 and images."""

from pathlib import Path

import fabio
import h5py
import hdf5plugin
import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources.images import find_images


def read(uri: str, **options: object) -> tuple[RunStart, list[Batch | Failure]]:
    source = open_source(uri, **options)
    start = source.start()
    items = [item for item in source if item is not None]
    source.close()
    source.close()
    seqs: list[int] = []
    for item in items:
        seqs += item.seq.tolist() if isinstance(item, Batch) else [item.seq]
    assert seqs == list(range(len(seqs)))
    return start, items


def stack(items: list[Batch | Failure], name: str) -> np.ndarray:
    return np.concatenate([i.arrays[name] for i in items if isinstance(i, Batch)])


def ids_of(items: list[Batch | Failure]) -> list[int]:
    return [n for i in items if isinstance(i, Batch) for n in i.ids.tolist()]


# series and xy


def test_series(tmp_path: Path) -> None:
    x = np.linspace(1, 2, 50)
    patterns = np.random.default_rng(1).random((37, 50)).astype(np.float32)
    path = tmp_path / "heating.npz"
    np.savez(path, x=x, intensity=patterns, x_name="q (1/nm)")
    start, items = read(f"series:{path}")
    assert [len(i) for i in items if isinstance(i, Batch)] == [16, 16, 5]
    np.testing.assert_array_equal(stack(items, "intensity"), patterns)
    np.testing.assert_array_equal(start.constants["axis"], x)
    assert (start.run_id, start.unit, start.expected) == ("heating", "q_nm^-1", 37)
    assert start.items["intensity"].shape == (50,)
    assert start.settings == {"baseline": {"method": "none"}, "normalise": "none"}
    assert ids_of(items) == list(range(37))


def test_series_errors_are_of_the_pipeline(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"none\.npz"):
        read(f"series:{tmp_path / 'none.npz'}")
    with pytest.raises(PipelineError, match="unknown key 'units'"):
        open_source("series:a.npz", units="2th_deg")
    with pytest.raises(PipelineError, match="not a folder"):
        open_source(f"xy:{tmp_path / 'none'}")


def test_unit_of_a_series_without_one(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    np.savez(path, x=np.arange(5.0), intensity=np.ones((2, 5)))
    with pytest.raises(PipelineError, match="unit"):
        read(f"series:{path}")
    assert read(f"series:{path}", unit="q_A^-1")[0].unit == "q_A^-1"


def test_real_xy_files(data_dir: Path) -> None:
    start, items = read(f"xy:{data_dir / 'xy_map'}")
    assert (start.expected, start.unit) == (9, "2th_deg")
    intensity = stack(items, "intensity")
    assert intensity.shape == (9, 1508)
    first = data_dir / "xy_map" / "Fe3O4C_M1_map_1_P1_E1_001.xy"
    x, y = np.loadtxt(first, unpack=True)
    np.testing.assert_allclose(start.constants["axis"], x)
    np.testing.assert_allclose(intensity[0], y, rtol=1e-6)


def test_real_series(data_dir: Path) -> None:
    path = data_dir / "series" / "nacl_crcl3_heating.npz"
    start, items = read(f"series:{path}")
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(stack(items, "intensity"), archive["intensity"])
    assert (start.expected, start.unit) == (133, "q_A^-1")


# hdf5


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", "<f4", ">f8", "|u1"])
def test_hdf5_frames_of_any_number(tmp_path: Path, dtype: str) -> None:
    frames = np.random.default_rng(2).integers(0, 200, (5, 7, 9)).astype(dtype)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1, 7, 9))
        file["entry/data/frame_number"] = np.array([9, 8, 30, 2, 1], np.uint64)
    start, items = read(f"hdf5:{path}#/entry/data/data", ids="/entry/data/frame_number")
    assert start.items["frame"].dtype == np.dtype(dtype).newbyteorder("=").str
    assert start.expected == 5
    assert [len(i) for i in items if isinstance(i, Batch)] == [1] * 5
    assert stack(items, "frame").dtype.isnative
    np.testing.assert_array_equal(stack(items, "frame"), frames)
    assert ids_of(items) == [9, 8, 30, 2, 1]


def test_hdf5_compressed(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).poisson(1, (3, 20, 30)).astype(np.uint16)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=frames, chunks=(1, 20, 30), **hdf5plugin.Bitshuffle())
    np.testing.assert_array_equal(stack(read(f"hdf5:{path}#d")[1], "frame"), frames)


def test_hdf5_patterns_with_axis(tmp_path: Path) -> None:
    path = tmp_path / "patterns.h5"
    patterns = np.random.default_rng(4).random((20, 6))
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group.attrs["axes"] = [".", "q"]
        group["I"] = patterns
        group["q"] = np.linspace(1, 2, 6)
        group["q"].attrs["units"] = "1/nm"
    start, items = read(f"hdf5:{path}#/entry/data/I")
    assert start.unit == "q_nm^-1"
    np.testing.assert_array_equal(start.constants["axis"], np.linspace(1, 2, 6))
    np.testing.assert_array_equal(stack(items, "intensity"), patterns.astype(np.float32))
    assert [len(i) for i in items if isinstance(i, Batch)] == [16, 4]


def test_hdf5_unreadable_chunk_is_one_failure(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    for shape in ((5, 4, 6), (5, 24)):
        with h5py.File(path, "w") as file:
            group = file.create_group("e")
            data = group.create_dataset(
                "d", data=np.ones(shape), chunks=(1, *shape[1:]), compression="gzip"
            )
            data.id.write_direct_chunk((3, *(0 for _ in shape[1:])), b"not deflate", 0)
            group.attrs["axes"] = [".", "x"]
            group["x"] = np.arange(24.0)
            group["x"].attrs["units"] = "deg"
        _, items = read(f"hdf5:{path}#/e/d")
        assert ids_of(items) == [0, 1, 2, 4]
        [failure] = [i for i in items if isinstance(i, Failure)]
        assert (failure.seq, failure.id, failure.stage) == (3, 3, "source")
        assert f"file {path}: /e/d[3] cannot be read" in failure.error


def test_hdf5_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        file["flat"] = np.ones(4)
        file["deep"] = np.ones((1, 2, 3, 4))
        file["text"] = np.array([[b"a"]])
        file["complex"] = np.ones((2, 2, 2), complex)
        file["patterns"] = np.ones((3, 5))
        file["frames"] = np.ones((3, 5, 5))
        file["scalar"] = 1
        group = file.create_group("entry")
        group.attrs["axes"] = [".", "x"]
        group["I"] = np.ones((3, 5))
        group["x"] = np.arange(5.0)
        group["x"].attrs["units"] = "furlong"
        for name, axis in (("nan", [0, 1, np.nan, 3, 4]), ("down", [4.0, 3, 2, 1, 0])):
            group = file.create_group(name)
            group.attrs["axes"] = [".", "x"]
            group["I"] = np.ones((3, 5))
            group["x"] = axis
            group["x"].attrs["units"] = "deg"
    cases = {
        "nothing": "no dataset nothing",
        "entry": "no dataset entry",
        "flat": r"shape \(4,\); frames are \(n, height, width\)",
        "scalar": r"shape \(\)",
        "deep": r"shape \(1, 2, 3, 4\)",
        "text": "neither integer nor float",
        "complex": "neither integer nor float",
        "patterns": "patterns without an axis; attribute 'axes'",
        "entry/I": "units 'furlong'",
        "nan/I": "/nan/x is not finite and increasing",
        "down/I": "/down/x is not finite and increasing",
    }
    for name, text in cases.items():
        with pytest.raises(PipelineError, match=text) as error:
            read(f"hdf5:{path}#{name}")
        assert str(path) in str(error.value)
    with pytest.raises(PipelineError, match="flat is float64"):
        read(f"hdf5:{path}#frames", ids="flat")
    with pytest.raises(PipelineError, match="FILE#/path"):
        read(f"hdf5:{path}")
    with pytest.raises(PipelineError, match="not found"):
        read(f"hdf5:{tmp_path / 'none.h5'}#d")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(PipelineError, match="truncated or still being written"):
        read(f"hdf5:{path}#frames")


# images


def write_tiff(path: Path, data: np.ndarray) -> None:
    fabio.tifimage.TifImage(data=data).write(str(path))


def test_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        write_tiff(tmp_path / f"f{number}.tif", np.full((4, 5), number, np.int32))
    (tmp_path / "a.poni").write_text("Distance: 1")
    start, items = read(f"images:{tmp_path}")
    assert start.expected == 3
    assert start.items["frame"].shape == (4, 5)
    assert start.items["frame"].dtype == "<i4"
    assert stack(items, "frame")[:, 0, 0].tolist() == [1, 2, 10]
    assert [p.name for p in find_images(f"{tmp_path}/f1*.tif")] == ["f1.tif", "f10.tif"]
    assert len(read(f"images:{tmp_path / 'f2.tif'}")[1]) == 1


def test_images_of_other_formats(tmp_path: Path) -> None:
    data = np.arange(400, dtype=np.int32).reshape(20, 20)
    fabio.edfimage.EdfImage(data=data).write(str(tmp_path / "a.edf"))
    fabio.cbfimage.CbfImage(data=data).write(str(tmp_path / "b.cbf"))
    _, items = read(f"images:{tmp_path}")
    for frame in stack(items, "frame"):
        np.testing.assert_array_equal(frame, data)


def test_bad_images_are_failures(tmp_path: Path) -> None:
    (tmp_path / "0.tif").write_bytes(b"")
    write_tiff(tmp_path / "1.tif", np.ones((4, 5), np.uint16))
    (tmp_path / "2.tif").write_bytes((tmp_path / "1.tif").read_bytes()[:60])
    write_tiff(tmp_path / "3.tif", np.ones((4, 6), np.uint16))
    write_tiff(tmp_path / "4.tif", np.ones((4, 5), np.float32))
    (tmp_path / "5.edf").write_bytes(np.random.default_rng(1).bytes(300))
    write_tiff(tmp_path / "6.tif", np.ones((4, 5), np.uint16))
    start, items = read(f"images:{tmp_path}")
    assert start.expected == 7
    assert ids_of(items) == [1, 6]
    bad = {i.id: i.error for i in items if isinstance(i, Failure)}
    assert sorted(bad) == [0, 2, 3, 4, 5]
    assert "uint16 (4, 6), not uint16 (4, 5)" in bad[3]
    assert "float32 (4, 5), not uint16" in bad[4]
    for number, error in bad.items():
        assert str(tmp_path / str(number)) in error
        assert "\n" not in error


def test_several_frames_in_one_image_file(tmp_path: Path) -> None:
    image = fabio.edfimage.EdfImage(data=np.ones((3, 3), np.int32))
    image.append_frame(data=np.ones((3, 3), np.int32))
    image.write(str(tmp_path / "two.edf"))
    with pytest.raises(PipelineError, match=r"two\.edf holds 2 frames, not one"):
        read(f"images:{tmp_path}")


def test_no_image(tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "none.tif", tmp_path / "*.edf"):
        with pytest.raises(PipelineError, match="no such image"):
            read(f"images:{target}")


def test_real_calibrant_image(data_dir: Path) -> None:
    start, items = read(f"images:{data_dir / 'ceo2_pilatus'}")
    assert (start.expected, start.wavelength_m) == (1, None)
    assert stack(items, "frame").shape == (1, 1043, 981)


def test_rows_can_be_reversed(tmp_path: Path) -> None:
    frames = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["data"] = frames
    fabio.tifimage.TifImage(frames[0]).write(str(tmp_path / "f.tif"))
    for uri, n in ((f"hdf5:{tmp_path}/f.h5#/data", 2), (f"images:{tmp_path}/f.tif", 1)):
        _, items = read(uri, flip=True)
        np.testing.assert_array_equal(stack(items, "frame"), frames[:n, ::-1])
