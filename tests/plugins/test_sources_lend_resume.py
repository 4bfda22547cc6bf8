"""What a source may offer: memory that is lent to it, and going on where another died."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source, open_source
from phasewatch.plugins.sources.frames import read_frames

Row = tuple[int, int, Any]  # seq, id, and the array or the error
Opener = Callable[[], Source]
LENDS = [None, 8, 3, 1, None, 2, 8]
GARBAGE = 77


class Lender:
    """Lends memory as `most` says, in turn; what is in it is never what was written last."""

    def __init__(self, run: RunStart, most: Sequence[int | None]) -> None:
        self._items = run.items
        self._most = cycle(most)
        self._lent: dict[str, np.ndarray] | None = None
        self._asked = False
        self.largest = 0

    def allocate(self, n: int) -> dict[str, np.ndarray] | None:
        assert not self._asked, "two allocations and nothing yielded between"
        assert n >= 1
        self._asked = True
        most = next(self._most)
        if most is None:
            return None
        self._lent = {
            name: np.full((min(n, most), *spec.shape), GARBAGE, spec.dtype)
            for name, spec in self._items.items()
        }
        return self._lent

    def taken(self, item: Batch | Failure | None) -> None:
        """Check that `item` is the first of what was lent, or none of it; make garbage of it."""
        lent, self._lent, self._asked = self._lent, None, False
        if lent is None or not isinstance(item, Batch):
            return
        for name, array in item.arrays.items():
            first = lent[name][: len(array)]
            same = array.__array_interface__ == first.__array_interface__
            assert same or not np.shares_memory(array, lent[name])
            if same:
                self.largest = max(self.largest, len(item))
            lent[name][...] = GARBAGE


def rows(source: Iterator[Any] | Source, lender: Lender | None = None) -> list[Row]:
    found: list[Row] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.seq, item.id, item.error))
        elif item is not None:
            [array] = item.arrays.values()
            found += zip(item.seq.tolist(), item.ids.tolist(), array.copy(), strict=True)
        if lender is not None:
            lender.taken(item)
    return found


def assert_same(got: list[Row], expected: list[Row]) -> None:
    assert [(seq, i) for seq, i, _ in got] == [(seq, i) for seq, i, _ in expected]
    for (*_, mine), (*_, other) in zip(got, expected, strict=True):
        if isinstance(other, str):
            assert mine == other
        else:
            assert mine.dtype == other.dtype
            np.testing.assert_array_equal(mine, other)


def whole(open_it: Opener) -> tuple[RunStart, list[Row]]:
    source = open_it()
    run = source.start()
    found = rows(source)
    source.close()
    assert [seq for seq, *_ in found] == list(range(len(found)))
    return run, found


@pytest.fixture
def lambda_bad(lambda_run: Callable[..., Path]) -> Path:
    """A run of three parts of six frames: of module 2 a part, of module 3 a frame is missing."""
    folder = lambda_run(parts=3, per_part=6)
    (folder / "run7_m2_part00001.nxs").unlink()
    with h5py.File(folder / "run7_m3_part00002.nxs", "r+") as file:
        group = file["entry/instrument/detector"]
        data, numbers = group["data"][:], group["sequence_number"][:]
        for name in ("data", "sequence_number"):
            del group[name]
        group["data"], group["sequence_number"] = np.delete(data, 3, 0), np.delete(numbers, 3)
    return folder


def hdf5(path: Path, kind: str) -> str:
    frames = np.random.default_rng(5).integers(0, 60, (21, 6, 9)).astype(np.uint16)
    one = (1, 6, 9)
    with h5py.File(path, "w") as file:
        if kind == "bare":
            file["d"] = frames
        elif kind == "big endian":
            file["d"] = frames.astype(">i4")
        elif kind == "holes":
            data = file.create_dataset("d", (21, 6, 9), "u2", chunks=one, fill_time="never")
            data[:5], data[9:] = frames[:5], frames[9:]
        elif kind == "chunk of four":
            file.create_dataset("d", data=frames, chunks=(4, 6, 9), compression="gzip")
            file["d"].id.write_direct_chunk((8, 0, 0), b"not deflate", 0)
        elif kind == "corrupt":
            file.create_dataset("d", data=frames, chunks=one, compression="gzip")
            for bad in (0, 5, 6, 20):
                file["d"].id.write_direct_chunk((bad, 0, 0), b"not deflate", 0)
        else:
            file["d"] = frames.reshape(21, 54)
            file["x"] = np.arange(54.0)
            file["x"].attrs["units"] = "deg"
            file.attrs["axes"] = [".", "x"]
    return f"hdf5:{path}#d"


HDF5 = ["bare", "big endian", "holes", "chunk of four", "corrupt", "patterns"]
FILES = ["lambda", "lambda bad", *HDF5, "flip"]


@pytest.fixture
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    kind: str = request.param
    options: dict[str, Any] = {}
    if kind == "lambda":
        uri = f"lambda-nexus:{request.getfixturevalue('lambda_run')(parts=2, per_part=10)}"
    elif kind == "lambda bad":
        uri = f"lambda-nexus:{request.getfixturevalue('lambda_bad')}"
    elif kind in HDF5:
        uri = hdf5(tmp_path / "f.h5", kind)
    elif kind == "flip":
        uri, options = hdf5(tmp_path / "f.h5", "bare"), {"flip": True}
    elif kind == "images":
        for n in range(5):
            fabio.tifimage.TifImage(np.full((3, 4), n, np.uint16)).write(str(tmp_path / f"{n}.tif"))
        (tmp_path / "2.tif").write_bytes(b"")
        uri = f"images:{tmp_path}"
    elif kind == "series":
        np.savez(tmp_path / "s.npz", x=np.arange(5.0), intensity=np.eye(40, 5))
        uri, options = f"series:{tmp_path / 's.npz'}", {"unit": "2th_deg"}
    else:
        for n in range(3):
            np.savetxt(tmp_path / f"{n}.xy", np.stack([np.arange(4.0), np.full(4, n + 1.0)], 1))
        uri, options = f"xy:{tmp_path}", {"unit": "2th_deg"}
    return lambda: open_source(uri, **options)


@pytest.mark.parametrize("opener", [*FILES, "images", "series", "xy"], indirect=True)
def test_resumed_is_the_tail_of_the_whole(opener: Opener) -> None:
    run, expected = whole(opener)
    for n in sorted({0, 1, len(expected) // 3, len(expected) // 2 + 1, len(expected)}):
        source = opener()
        source.resume(run, n)
        assert_same(rows(source), expected[n:])
        source.close()


@pytest.mark.parametrize("opener", FILES, indirect=True)
@pytest.mark.parametrize("most", [[8], LENDS], ids=["much", "little"])
def test_lent_memory_holds_the_same(opener: Opener, most: list[int | None]) -> None:
    _, expected = whole(opener)
    source = opener()
    lender = Lender(source.start(), most)
    source.lend(lender.allocate)
    assert_same(rows(source, lender), expected)


@pytest.mark.parametrize(
    ("opener", "together"),
    [("bare", 8), ("lambda", 8), ("lambda bad", 6), ("chunk of four", 4), ("corrupt", 1)],
    indirect=["opener"],
)
def test_as_many_frames_at_once_as_are_cheap(opener: Opener, together: int) -> None:
    source = opener()
    lender = Lender(source.start(), [100])
    source.lend(lender.allocate)
    rows(source, lender)
    assert lender.largest == together


def test_resumed_source_is_lent_memory(lambda_bad: Path) -> None:
    run, expected = whole(lambda: open_source(f"lambda-nexus:{lambda_bad}"))
    source = open_source(f"lambda-nexus:{lambda_bad}")
    source.resume(run, 9)
    lender = Lender(run, LENDS)
    source.lend(lender.allocate)
    assert_same(rows(source, lender), expected[9:])


@pytest.mark.parametrize("most", [[8], [3], [1], [None], LENDS], ids=str)
def test_bad_frame_does_not_take_its_neighbours_along(most: list[int | None]) -> None:
    bad = {0, 5, 6, 13, 22}
    spec = ItemSpec.of((2, 3), np.int32)
    lender = Lender(RunStart(run_id="r", source="s", items={"frame": spec}), most)

    def read(first: int, out: np.ndarray) -> None:
        for seq, frame in enumerate(out, first):
            frame[0] = seq  # and then something goes wrong
            if seq in bad:
                raise PipelineError(f"no {seq}")
            frame[1] = -seq

    items = read_frames(range(23), np.arange(100, 123), spec, read, allocate=lender.allocate)
    found = rows(items, lender)
    assert [(seq, i) for seq, i, _ in found] == [(n, n + 100) for n in range(23)]
    for seq, _, content in found:
        if seq in bad:
            assert content == f"no {seq}"
        else:
            assert content.tolist() == [[seq] * 3, [-seq] * 3]


def test_file_that_vanishes_while_it_is_read(lambda_run: Callable[..., Path]) -> None:
    """Frames 1 to 8 are read together; the part of module 2 that holds 5 to 8 has gone."""
    folder = lambda_run(parts=3, per_part=4)
    _, expected = whole(lambda: open_source(f"lambda-nexus:{folder}"))
    source = open_source(f"lambda-nexus:{folder}")
    lender = Lender(source.start(), [8])
    source.lend(lender.allocate)
    gone = folder / "run7_m2_part00001.nxs"
    gone.unlink()
    found = rows(source, lender)
    assert_same(found[:4] + found[8:], expected[:4] + expected[8:])
    for _, number, error in found[4:8]:
        start = f"frame {number}: module 2: file {gone}: data[{number - 5}] cannot be read"
        assert error.startswith(start)


def test_changed_files_are_not_gone_on_with(lambda_run: Callable[..., Path]) -> None:
    """By position nobody could tell which frames were taken."""
    folder = lambda_run(parts=2, per_part=4)
    paths = [folder / f"run7_m{module}_part00000.nxs" for module in (1, 2, 3)]
    hidden = [path.rename(path.with_suffix(".hidden")) for path in paths]
    run, _ = whole(lambda: open_source(f"lambda-nexus:{folder}"))
    assert run.expected == 8  # the planned number: it does not tell
    for path in hidden:
        path.rename(path.with_suffix(".nxs"))
    source = open_source(f"lambda-nexus:{folder}")
    with pytest.raises(PipelineError, match=r"raw has changed since the run began: digests was"):
        source.resume(run, 2)


def test_longer_file_is_not_gone_on_with(tmp_path: Path) -> None:
    uri = hdf5(tmp_path / "f.h5", "bare")
    run, _ = whole(lambda: open_source(uri))
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        del file["d"]
        file["d"] = np.zeros((22, 6, 9), np.uint16)
    with pytest.raises(PipelineError, match="expected was 21, is 22"):
        open_source(uri).resume(run, 2)
