"""The LAMBDA source: assembly by sequence number, and every way in which its files can be bad."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source

DETECTOR = "entry/instrument/detector"
Write = Callable[..., Path]


def read(target: Path | str, **options: object) -> tuple[RunStart, list[Batch | Failure]]:
    source = open_source(f"lambda-nexus:{target}", **options)
    start = source.start()
    items = [item for item in source if item is not None]
    source.close()
    source.close()
    seqs = [int(i.seq[0]) if isinstance(i, Batch) else i.seq for i in items]
    assert seqs == list(range(len(items)))
    return start, items


def split(items: list[Batch | Failure]) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    good = {int(i.ids[0]): i.arrays["frame"][0] for i in items if isinstance(i, Batch)}
    bad = {i.id: i.error for i in items if isinstance(i, Failure)}
    assert len(good) + len(bad) == len(items)
    return good, bad


def part(folder: Path, module: int, number: int) -> Path:
    return folder / f"run7_m{module}_part{number:05d}.nxs"


def upright(frame: np.ndarray, module: int) -> np.ndarray:
    """Cut the module out of the flipped canvas."""
    row, column = {1: (0, 2), 2: (25, 0), 3: (50, 0)}[module]
    return frame[::-1][row : row + 20, column : column + 30]


def expected_frame(module: int, number: int) -> np.ndarray:
    return (np.arange(600, dtype=np.int16).reshape(20, 30) + 1000 * module + 7 * number) % 4000


def test_whole_run(lambda_run: Write) -> None:
    start, items = read(lambda_run())
    good, bad = split(items)
    assert not bad
    assert list(good) == list(range(1, 13))
    assert start.items["frame"].shape == (70, 32)
    assert start.items["frame"].dtype == "<i2"
    assert (start.expected, start.saturation, start.wavelength_m) == (12, 4095.0, None)
    assert start.run_id == "run7"
    for number, frame in good.items():
        for module in (1, 2, 3):
            np.testing.assert_array_equal(upright(frame, module), expected_frame(module, number))
        assert np.count_nonzero(frame == -1) == 70 * 32 - 3 * 600
    mask = start.constants["mask"]
    assert mask.dtype == np.bool_
    # gaps between modules, two gap columns and one noisy pixel each; bit 31 is not bad
    assert mask.sum() == 70 * 32 - 3 * 600 + 3 * 41


@pytest.mark.parametrize("name", ["run7", "run7_m2_part00001.nxs"])
def test_prefix_or_file_names_the_run(lambda_run: Write, name: str) -> None:
    lambda_run("run8")
    folder = lambda_run("run7")
    start, items = read(folder / name)
    assert start.run_id == "run7"
    assert len(items) == 12


def test_two_runs_in_one_folder_are_listed(lambda_run: Write) -> None:
    lambda_run("run8")
    folder = lambda_run("run7")
    with pytest.raises(PipelineError, match=r"2 runs; name one: .*run7, .*run8$"):
        read(folder)


def test_unsplit_files(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    for path in sorted(folder.iterdir()):
        path.rename(folder / path.name.replace("_part00000", ""))
    assert len(read(folder)[1]) == 4


@pytest.mark.parametrize("target", ["nothing", "raw", "raw/other", "raw/notes.txt"])
def test_no_such_run(tmp_path: Path, target: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("x")
    with pytest.raises(PipelineError, match=r"_m1_part00000\.nxs") as error:
        read(tmp_path / target)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_missing_part_of_one_module(lambda_run: Write) -> None:
    folder = lambda_run()
    missing = part(folder, 2, 1)
    missing.unlink()
    start, items = read(folder)
    good, bad = split(items)
    assert start.expected == 12
    assert sorted(good) == [1, 2, 3, 4, 9, 10, 11, 12]
    assert bad == {
        n: f"frame {n}: module 2 missing: file {missing} not found" for n in (5, 6, 7, 8)
    }


def test_part_missing_of_all_modules_is_a_gap(lambda_run: Write) -> None:
    folder = lambda_run()
    for module in (1, 2, 3):
        part(folder, module, 1).unlink()
    start, items = read(folder)
    good, bad = split(items)
    assert not bad
    assert sorted(good) == [1, 2, 3, 4, 9, 10, 11, 12]
    assert start.expected == 12


@pytest.mark.parametrize("keep", [0, 100, 3000, -1000])
def test_truncated_part(lambda_run: Write, keep: int) -> None:
    folder = lambda_run()
    path = part(folder, 3, 2)
    path.write_bytes(path.read_bytes()[:keep])
    good, bad = split(read(folder)[1])
    assert sorted(good) == list(range(1, 9))
    assert sorted(bad) == [9, 10, 11, 12]
    for error in bad.values():
        assert str(path) in error
        assert "being written" in error
        assert "\n" not in error


def test_part_of_noise(lambda_run: Write) -> None:
    folder = lambda_run()
    path = part(folder, 1, 0)
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    good, bad = split(read(folder)[1])
    assert sorted(bad) == [1, 2, 3, 4]
    assert len(good) == 8
    assert all(str(path) in error for error in bad.values())


def test_first_part_of_a_module_bad_does_not_matter_for_the_layout(lambda_run: Write) -> None:
    folder = lambda_run()
    part(folder, 1, 0).unlink()
    start, items = read(folder)
    assert start.items["frame"].shape == (70, 32)
    assert len(split(items)[0]) == 8


def test_no_readable_file_of_a_module(lambda_run: Write) -> None:
    folder = lambda_run(parts=2)
    for number in (0, 1):
        part(folder, 2, number).write_bytes(b"")
    with pytest.raises(PipelineError, match=r"module 2: file .*m2_part00000.nxs is empty"):
        read(folder)


def test_no_file_of_a_module_between_two(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    part(folder, 2, 0).unlink()
    with pytest.raises(PipelineError, match=r"^module 2 has no file; m1, m3 found in .*raw$"):
        read(folder)


def test_no_file_of_the_first_module(lambda_run: Write) -> None:
    folder = lambda_run(parts=2)
    for number in (0, 1):
        part(folder, 1, number).unlink()
    for target in (folder, folder / "run7", part(folder, 2, 0)):
        with pytest.raises(PipelineError, match=r"^module 1 has no file; m2, m3 found in .*raw$"):
            read(target)


def test_number_of_modules_is_checked(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    assert len(read(folder, modules=3)[1]) == 4
    with pytest.raises(PipelineError, match=r"numbered from 1 to 2; m1, m2, m3 found in .*raw$"):
        read(folder, modules=2)
    part(folder, 3, 0).unlink()
    with pytest.raises(PipelineError, match=r"^module 3 has no file; m1, m2 found in .*raw$"):
        read(folder, modules=3)
    assert read(folder)[0].items["frame"].shape == (45, 32)  # nothing in the names tells


def test_module_0_is_none(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    part(folder, 3, 0).rename(part(folder, 0, 0))
    with pytest.raises(PipelineError, match=r"numbered from 1 to 2; m0, m1, m2 found"):
        read(folder)


@pytest.mark.parametrize("mask", [np.zeros((1, 4, 4), np.uint32), np.zeros((20, 30))])
def test_bad_pixel_mask(lambda_run: Write, mask: np.ndarray) -> None:
    folder = lambda_run(parts=1)
    rewrite(part(folder, 3, 0), pixel_mask=mask)
    with pytest.raises(PipelineError, match=r"run7_m3_part00000.nxs: pixel_mask is"):
        read(folder)


def rewrite(path: Path, **datasets: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        for name, value in datasets.items():
            del file[f"{DETECTOR}/{name}"]
            file[f"{DETECTOR}/{name}"] = value


def test_dropped_frames_are_matched_by_number(lambda_run: Write) -> None:
    folder = lambda_run()
    path = part(folder, 2, 1)
    with h5py.File(path) as file:
        data = file[f"{DETECTOR}/data"][:]
    rewrite(path, data=data[[0, 2, 3]], sequence_number=np.array([5, 7, 8], np.int32))
    good, bad = split(read(folder)[1])
    assert list(bad) == [6]
    assert bad[6] == (
        f"frame 6: module 2 missing: no such sequence_number in {path} or its other parts"
    )
    for number in (5, 7, 8):
        np.testing.assert_array_equal(upright(good[number], 2), expected_frame(2, number))


def test_frames_need_not_be_in_the_same_part(lambda_run: Write) -> None:
    """A module that lost a frame fills its part with the next."""
    folder = lambda_run(parts=2)
    rewrite(
        part(folder, 3, 0),
        data=np.array([expected_frame(3, n) for n in (1, 2, 4, 5)], np.int16),
        sequence_number=np.array([1, 2, 4, 5], np.int32),
    )
    rewrite(
        part(folder, 3, 1),
        data=np.array([expected_frame(3, n) for n in (6, 7, 8)], np.int16),
        sequence_number=np.array([6, 7, 8], np.int32),
    )
    good, bad = split(read(folder)[1])
    assert list(bad) == [3]
    for number, frame in good.items():
        np.testing.assert_array_equal(upright(frame, 3), expected_frame(3, number))


def test_part_still_being_written(lambda_run: Write) -> None:
    folder = lambda_run()
    path = part(folder, 1, 2)
    with h5py.File(path) as file:
        data = file[f"{DETECTOR}/data"][:2]
    rewrite(path, data=data)
    good, bad = split(read(folder)[1])
    assert sorted(good) == list(range(1, 11))
    assert bad[11] == (
        f"frame 11: module 1 missing: file {path} holds 2 of 4 frames: still being written?"
    )


def test_number_that_comes_twice(lambda_run: Write) -> None:
    folder = lambda_run()
    rewrite(part(folder, 1, 1), sequence_number=np.array([5, 6, 4, 8], np.int32))
    _, bad = split(read(folder)[1])
    assert sorted(bad) == [4, 7]
    assert "module 1 has this sequence_number more than once" in bad[4]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("data", np.zeros((4, 19, 30), np.int16), "shape is (19, 30)"),
        ("data", np.zeros((4, 20, 30), np.uint32), "dtype is uint32"),
        ("data", np.zeros((4, 20, 30), np.float32), "must be integers"),
        ("data", np.zeros((20, 30), np.int16), "no entry/instrument/detector/data with 3 axes"),
        ("translation/distance", np.array([0.0, 9.0, 0.0]), "translation is (0.0, 9.0)"),
        ("translation/distance", np.array([0.0, np.nan, 0.0]), "is not (x, y, z) pixels"),
        ("sequence_number", np.array(["a"] * 4, "S1"), "must be integers"),
    ],
)
def test_part_unlike_the_others(lambda_run: Write, name: str, value: np.ndarray, text: str) -> None:
    folder = lambda_run()
    path = part(folder, 2, 1)
    rewrite(path, **{name: value})
    good, bad = split(read(folder)[1])
    assert sorted(bad) == [5, 6, 7, 8]
    assert len(good) == 8
    for error in bad.values():
        assert text in error
        assert str(path) in error


def test_unreadable_chunk_of_one_frame(lambda_run: Write) -> None:
    folder = lambda_run()
    path = part(folder, 2, 0)
    with h5py.File(path, "r+") as file:
        data = file[f"{DETECTOR}/data"][:]
        del file[f"{DETECTOR}/data"]
        compressed = file.create_dataset(
            f"{DETECTOR}/data", data=data, chunks=(1, 20, 30), compression="gzip"
        )
        compressed.id.write_direct_chunk((2, 0, 0), b"not deflate", 0)
    good, bad = split(read(folder)[1])
    assert list(bad) == [3]
    assert f"file {path}: data[2] cannot be read" in bad[3]
    assert len(good) == 11


def test_overlapping_modules_are_an_error(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    rewrite(part(folder, 2, 0), **{"translation/distance": np.array([0.0, 1.0, 0.0])})
    with pytest.raises(PipelineError, match=r"run7_m1_part00000.nxs: translation: two modules"):
        read(folder)


def test_unfilled_planned_number_and_saturation(lambda_run: Write) -> None:
    folder = lambda_run(parts=1)
    for module in (1, 2, 3):
        rewrite(
            part(folder, module, 0),
            **{"collection/frame_numbers": np.array([-1]), "saturation_value": np.array([0])},
        )
    start, _ = read(folder)
    assert start.expected == 4
    assert start.saturation is None


def test_real_run(data_dir: Path) -> None:
    source = open_source(f"lambda-nexus:{data_dir / 'lambda_p022'}")
    start = source.start()
    assert start.run_id == "testasapo1_1009_00002"
    assert start.items["frame"].shape == (1833, 1556)
    assert start.items["frame"].dtype == "<i2"
    assert (start.expected, start.saturation, start.wavelength_m) == (50, 4095.0, None)
    mask = start.constants["mask"]
    assert mask.mean() == pytest.approx(0.168, abs=0.0005)
    ids = []
    for item in source:
        assert isinstance(item, Batch)
        ids += item.ids.tolist()
        frame = item.arrays["frame"]
        assert frame.shape == (1, 1833, 1556)
        assert mask[frame[0] == -1].all()
    assert ids == list(range(1, 51))


def test_real_frame_is_the_modules_own(data_dir: Path) -> None:
    """Frame 11, the first of the second part, module by module, against the files themselves."""
    folder = data_dir / "lambda_p022"
    source = open_source(f"lambda-nexus:{folder}")
    source.start()
    frames = iter(source)
    batch = next(b for b in frames if isinstance(b, Batch) and b.ids[0] == 11)
    source.close()
    canvas = batch.arrays["frame"][0][::-1]
    for module, row, column in ((1, 0, 2), (2, 660, 0), (3, 1317, 0)):
        name = f"testasapo1_1009_00002_m{module}_part00001.nxs"
        with h5py.File(folder / name) as file:
            expected = file[f"{DETECTOR}/data"][0]
        np.testing.assert_array_equal(canvas[row : row + 516, column : column + 1554], expected)
