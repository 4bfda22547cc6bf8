"""The source extra-data: runs that EXtra-data's own writers made, whole, with gaps and damaged."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from extra_data.tests import make_examples
from extra_data.tests.mockdata import write_file
from structlog.testing import capture_logs

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source, open_source
from phasewatch.plugins.sources.run_items import parse_slice

from .bridge import image, numbers, take
from .euxfel import FIRST, KEY, SOURCE, camera, skip, write_images

N, SHAPE = 12, (5, 7)


def frames(n: int = N, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.stack([image(i, shape) for i in range(n)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two files: what a LAMBDA in front of Karabo would give."""
    folder = tmp_path / "r0450"
    write_images(folder, frames()[:8])
    write_images(folder, frames()[8:], part=1, first=FIRST + 8)
    return folder


def uri(path: Path, source: str = SOURCE, key: str = KEY) -> str:
    return f"extra-data:{path}#{source},{key}"


def whole(source: Source) -> list[tuple[int, Any]]:
    source.start()
    found = take(source)
    source.close()
    source.close()
    return found


def test_every_frame_with_its_train_and_time(run: Path) -> None:
    source = open_source(uri(run))
    start = source.start()
    assert start.items["frame"].shape == SHAPE
    assert (start.expected, start.run_id) == (N, "r0450")
    items = [item for item in source if item is not None]
    assert all(isinstance(item, Batch) for item in items)
    assert [n for i in items for n in i.seq.tolist()] == list(range(N))
    assert [n for i in items for n in i.ids.tolist()] == list(range(FIRST, FIRST + N))
    np.testing.assert_array_equal(
        np.concatenate([i.arrays["frame"] for i in items]), frames(), strict=True
    )
    with h5py.File(run / "RAW-R0450-DA01-S00000.h5") as file:
        stamps = file["INDEX/timestamp"][:8].astype(np.int64)
    np.testing.assert_array_equal([t for i in items for t in i.t_acq][:8], stamps)


def test_one_file(run: Path) -> None:
    found = whole(open_source(uri(run / "RAW-R0450-DA01-S00001.h5")))
    assert numbers(found) == list(range(FIRST + 8, FIRST + N))


def test_files_without_times_give_none(tmp_path: Path) -> None:
    write_images(tmp_path / "old", frames(), version="0.5")
    source = open_source(uri(tmp_path / "old"))
    source.start()
    assert next(item for item in source if item is not None).t_acq is None
    source.close()


def test_train_that_the_detector_skipped_is_a_gap(run: Path) -> None:
    skip(run / "RAW-R0450-DA01-S00000.h5", 3)
    source = open_source(uri(run))
    assert source.start().expected == N
    found = take(source)
    assert numbers(found) == [FIRST + n for n in range(N) if n != 3]
    assert all(not isinstance(frame, str) for _, frame in found)


def test_trains_that_are_in_no_file_are_expected(tmp_path: Path) -> None:
    write_images(tmp_path / "r", frames()[:4])
    write_images(tmp_path / "r", frames()[7:], part=1, first=FIRST + 7)
    source = open_source(uri(tmp_path / "r"))
    assert source.start().expected == N
    assert len(take(source)) == N - 3
    source = open_source(uri(tmp_path / "r"), trains="::2")
    assert source.start().expected == 5
    source.close()


def test_train_id_that_is_none_is_left_out(run: Path) -> None:
    with h5py.File(run / "RAW-R0450-DA01-S00001.h5", "r+") as file:
        file["INDEX/trainId"][3] = (1 << 64) - 1  # as the data acquisition writes at times
    assert numbers(whole(open_source(uri(run)))) == [FIRST + n for n in range(N - 1)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"trains": "2:5"}, [2, 3, 4]),
        ({"trains": "::5"}, [0, 5, 10]),
        ({"trains": "3"}, [3]),
        ({"trains": "10:"}, [10, 11]),
        ({"train_ids": f"{FIRST + 2}:{FIRST + 4}"}, [2, 3]),
        ({"train_ids": f"{FIRST + 6}::4"}, [6, 10]),
        ({"train_ids": str(FIRST + 9)}, [9]),
        ({"trains": "4:", "train_ids": f":{FIRST + 6}"}, [4, 5]),
    ],
)
def test_chosen_trains(run: Path, options: dict[str, str], expected: list[int]) -> None:
    source = open_source(uri(run), **options)
    assert source.start().expected == len(expected)
    assert numbers(take(source)) == [FIRST + n for n in expected]


PULSES = 4


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Three trains of four pulses, of ten modules that are sources of their own."""
    for module in range(11):
        if module != 5:
            write_images(
                tmp_path / "r",
                frames(3 * PULSES) + 100 * module,
                aggregator=f"DET{module:02d}",
                name=f"D/DET/{module}CH0",
                per_train=PULSES,
            )
    return tmp_path / "r"


DETECTOR = "D/DET/*CH0:daqOutput"


def test_pulses_have_numbers_of_their_own(modules: Path) -> None:
    source = open_source(uri(modules, "D/DET/0CH0:daqOutput"))
    assert source.start().expected == 3 * PULSES
    found = take(source)
    assert numbers(found) == list(range(FIRST * PULSES, (FIRST + 3) * PULSES))
    np.testing.assert_array_equal([frame for _, frame in found], frames(3 * PULSES))
    source = open_source(uri(modules, "D/DET/0CH0:daqOutput"), pulses="1::2")
    assert source.start().expected == 6
    found = take(source)
    assert numbers(found) == list(range(FIRST * 2, (FIRST + 3) * 2))
    np.testing.assert_array_equal([frame for _, frame in found], frames(3 * PULSES)[1::2])


def test_modules_are_stacked_in_the_order_of_their_numbers(modules: Path) -> None:
    source = open_source(uri(modules, DETECTOR))
    assert source.start().items["frame"].shape == (10 * SHAPE[0], SHAPE[1])
    found = take(source)
    order = [m for m in range(11) if m != 5]
    expected = [np.concatenate([frame + 100 * m for m in order]) for frame in frames(3 * PULSES)]
    np.testing.assert_array_equal([frame for _, frame in found], expected)


def test_train_of_which_a_module_is_missing_is_failures(modules: Path) -> None:
    with h5py.File(modules / "RAW-R0450-DET07-S00000.h5", "r+") as file:
        file["INDEX/D/DET/7CH0:daqOutput/data/count"][1] = PULSES - 1
    found = whole(open_source(uri(modules, DETECTOR)))
    assert numbers(found) == list(range(FIRST * PULSES, (FIRST + 3) * PULSES))
    bad = [frame for _, frame in found if isinstance(frame, str)]
    assert [isinstance(frame, str) for _, frame in found] == [0] * 4 + [1] * 4 + [0] * 4
    assert bad == 4 * [f"train {FIRST + 1}: pulses of the modules: {[4] * 6 + [3] + [4] * 3}"]


def test_frames_that_cannot_be_read_are_failures(tmp_path: Path) -> None:
    path = write_images(tmp_path / "r", frames())
    name = f"INSTRUMENT/{SOURCE}/data/image/pixels"
    with h5py.File(path, "r+") as file:
        del file[name]
        chunk = (1, *SHAPE)
        data = file.create_dataset(name, data=frames()[:10], chunks=chunk, compression="gzip")
        data.id.write_direct_chunk((4, 0, 0), b"not deflate", 0)
    found = whole(open_source(uri(tmp_path / "r")))
    assert numbers(found) == list(range(FIRST, FIRST + N))
    bad = {n - FIRST: frame for n, frame in found if isinstance(frame, str)}
    assert list(bad) == [4, 10, 11]
    assert bad[4].startswith(f"train {FIRST + 4} cannot be read (")
    assert "rows 10 on of 10: cut off" in bad[10]


def test_raw_axis_of_which_the_first_is_taken(tmp_path: Path) -> None:
    raw = frames(6, (2, *SHAPE))
    write_images(tmp_path / "r", raw)
    with pytest.raises(PipelineError, match='set axes = "p0yx" or "pmyx"'):
        open_source(uri(tmp_path / "r")).start()
    found = whole(open_source(uri(tmp_path / "r"), axes="p0yx"))
    np.testing.assert_array_equal([frame for _, frame in found], raw[:, 0])
    found = whole(open_source(uri(tmp_path / "r"), axes="pmyx"))
    np.testing.assert_array_equal([frame for _, frame in found], raw.reshape(6, 10, 7))
    found = whole(open_source(uri(tmp_path / "r"), axes="p0xy"))
    np.testing.assert_array_equal([frame for _, frame in found], raw[:, 0].transpose(0, 2, 1))


def test_real_detectors_of_the_example_writers(tmp_path: Path) -> None:
    make_examples.make_lpd_run_mini_missed_train(str(tmp_path))
    name = "FXE_DET_LPD1M-1/DET/*CH0:xtdf"
    source = open_source(uri(tmp_path, name, "image.data"), axes="p0yx")
    start = source.start()
    assert start.items["frame"].shape == (512, 256)
    assert start.expected == 50
    found = take(source)
    assert len(found) == 50
    bad = [n for n, frame in found if isinstance(frame, str)]
    assert bad == list(range(10002 * 10, 10003 * 10))  # of which module 1 has nothing


@pytest.mark.parametrize("n", [0, 1, 5, 11, 12])
def test_resumed_is_the_tail_of_the_whole(run: Path, n: int) -> None:
    first = open_source(uri(run))
    start = first.start()
    expected = take(first)
    source = open_source(uri(run))
    source.resume(start, n)  # type: ignore[attr-defined]
    items = [item for item in source if item is not None]
    assert [s for i in items for s in i.seq.tolist()] == list(range(n, N))
    assert [i for b in items for i in b.ids.tolist()] == numbers(expected)[n:]
    source.close()


def test_resume_refuses_another_run(run: Path, tmp_path: Path) -> None:
    first = open_source(uri(run))
    start = first.start()
    first.close()
    write_images(tmp_path / "other", frames(3))
    with pytest.raises(PipelineError, match="has changed since the run began: expected"):
        open_source(uri(tmp_path / "other")).resume(start, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("most", [1, 3, 8])
@pytest.mark.parametrize("kind", ["run", "modules"])
def test_lent_memory_holds_the_same(request: pytest.FixtureRequest, kind: str, most: int) -> None:
    path, name = request.getfixturevalue(kind), SOURCE if kind == "run" else DETECTOR
    expected = whole(open_source(uri(path, name)))
    source = open_source(uri(path, name))
    spec = source.start().items["frame"]
    memory, given = np.full((64, *spec.shape), 999, np.uint16), [0]

    def allocate(n: int) -> dict[str, np.ndarray]:
        first, given[0] = given[0], given[0] + min(n, most)
        return {"frame": memory[first : given[0]]}

    source.lend(allocate)  # type: ignore[attr-defined]
    assert len(take(source)) == len(expected)
    np.testing.assert_array_equal(memory[: len(expected)], [frame for _, frame in expected])


def broken(change: Callable[[h5py.File], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with h5py.File(folder / "RAW-R0450-DA01-S00000.h5", "r+") as file:
            change(file)
        return folder

    return make


def nothing(file: h5py.File) -> None:
    file[f"INDEX/{SOURCE}/data/count"][:] = 0


def too_many(file: h5py.File) -> None:
    file[f"INDEX/{SOURCE}/data/count"][2] = 1 << 62


@pytest.mark.parametrize(
    ("make", "name", "key", "said"),
    [
        (lambda p: p / "absent", SOURCE, KEY, "no such file or folder"),
        (lambda p: p.parent, SOURCE, KEY, "no run of European XFEL's format .*No HDF5 files"),
        (broken(nothing), SOURCE, KEY, "^extra-data:.*r0450: no images in 8 trains of at most 0"),
        (broken(too_many), SOURCE, KEY, "train 10002 has 4611686018427387904 pulses"),
        (lambda p: p, "X/CAM/OTHER", KEY, f'no source "X/CAM/OTHER"; there are: {SOURCE}'),
        (lambda p: p, SOURCE, "data.other", f'no key "data.other"; there are:.*{KEY}'),
        (lambda p: p, SOURCE, "data.frameNumber", r"has \(\) for each pulse: not an image"),
    ],
)
def test_what_the_user_got_wrong(
    run: Path, make: Callable[[Path], Path], name: str, key: str, said: str
) -> None:
    if make.__name__ == "make":
        (run / "RAW-R0450-DA01-S00001.h5").unlink()
    with pytest.raises(PipelineError, match=said) as error:
        open_source(uri(make(run), name, key)).start()
    assert "\n" not in str(error.value)


def test_no_source_named_lists_them(run: Path) -> None:
    with pytest.raises(PipelineError, match=f"not RUN#source,key; there are: {SOURCE}"):
        open_source(f"extra-data:{run}").start()


def test_key_of_texts_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    path = tmp_path / "r" / "RAW-R0450-DA01-S00000.h5"
    write_file(path, [camera((2, 3), "S5")], 4, FIRST, 1, "1.2")
    with pytest.raises(PipelineError, match="not an image"):
        open_source(uri(tmp_path / "r")).start()


def test_file_that_is_none_is_said(run: Path) -> None:
    (run / "RAW-R0450-DA02-S00000.h5").write_bytes(b"no HDF5")
    with capture_logs() as logs:
        assert len(whole(open_source(uri(run)))) == N
    [log] = logs
    assert (log["event"], log["files"]) == ("files cannot be read", "RAW-R0450-DA02-S00000.h5")
    (run / "RAW-R0450-DA01-S00000.h5").write_bytes(b"no HDF5")
    with pytest.raises(PipelineError, match=r"^extra-data:.*S00000.h5: .*signature not found"):
        open_source(uri(run / "RAW-R0450-DA01-S00000.h5")).start()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trains": "a:b"}, 'trains = "a:b": not START:STOP'),
        ({"trains": ""}, "not START:STOP"),
        ({"trains": "-5:"}, "not START:STOP"),
        ({"trains": "1:5:0"}, "not START:STOP"),
        ({"train_ids": "9" * 30}, 'train_ids = "999'),
        ({"pulses": "1:2:3:4"}, 'pulses = "1:2:3:4"'),
        ({"axes": "yx"}, 'the first axis in a file are the pulses: "pyx"'),
        ({"axes": "pyxz"}, "one letter for each axis"),
        ({"other": 1}, "unknown key 'other'"),
    ],
)
def test_options(run: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        open_source(uri(run), **options).start()


def test_slices() -> None:
    assert parse_slice(None, "k") == slice(None)
    assert parse_slice("3", "k") == slice(3, 4)
    assert parse_slice(":", "k") == slice(None)
    assert parse_slice("1:9:2", "k") == slice(1, 9, 2)


def test_says_which_extra_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "extra_data":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(PipelineError, match=r"pip install 'phasewatch\[facility\]'"):
        open_source(uri(run)).start()


def test_failures_are_of_the_source(modules: Path) -> None:
    with h5py.File(modules / "RAW-R0450-DET07-S00000.h5", "r+") as file:
        file["INDEX/D/DET/7CH0:daqOutput/data/count"][1] = 0
    source = open_source(uri(modules, DETECTOR))
    source.start()
    assert {item.stage for item in source if isinstance(item, Failure)} == {"source"}
