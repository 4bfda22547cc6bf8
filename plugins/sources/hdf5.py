"""``hdf5:FILE#/path``: the frames or patterns of one dataset of an HDF5 file.

A dataset (n, height, width) holds frames of any integer or float dtype, one (n, n_bins) patterns.
Patterns need the axis that NXdata puts beside them: the group's attribute ``axes`` names it last,
and its attribute ``units`` (or our own ``unit``) says what it is. Compressed files are read with
the filters of hdf5plugin, one frame at a time; others straight into memory that is lent.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters)
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, Packing, RunStart, Unit
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sources.frames import (
    Allocate,
    Chunks,
    Rows,
    never,
    open_frames,
    own_memory,
    read_frames,
)
from phasewatch.plugins.sources.items import (
    BLOCK,
    READ_ERRORS,
    check_same,
    pattern_batch,
)

UNITS: dict[str, Unit] = {
    **dict.fromkeys(("deg", "degree", "degrees"), "2th_deg"),
    **dict.fromkeys(("nm^-1", "1/nm", "nm-1"), "q_nm^-1"),
    **dict.fromkeys(("A^-1", "1/A", "A-1", "1/angstrom", "angstrom^-1", "Å^-1", "1/Å"), "q_A^-1"),
    **{unit: unit for unit in get_args(Unit)},
}


def open_source(target: str, *, ids: str | None = None, flip: bool = False) -> "Hdf5":
    """Open ``FILE#/path``.

    Parameters
    ----------
    target
        File and path of the dataset in it.
    ids
        Path of the dataset (n,) of frame numbers; without it they are counted from 0.
    flip
        Reverse the rows of frames, as the program did that the PONI was made with (Dioptas does).
    """
    file, hash_, path = target.rpartition("#")
    if not hash_ or not file or not path:
        raise PipelineError(f"hdf5:{target}: not FILE#/path/of/dataset")
    return Hdf5(file, path, ids, flip)


class Hdf5:
    """Source of the items of one dataset."""

    def __init__(self, name: str, path: str, ids: str | None, flip: bool) -> None:
        self._name = name
        self._path = path
        self._ids_path = ids
        self._flip = flip
        self._file: h5py.File | None = None
        self._first = 0
        self._allocate: Allocate = own_memory
        self._wanted = never

    def start(self) -> RunStart:
        """Open the file and say what the dataset holds."""
        if not Path(self._name).is_file():
            raise PipelineError(f"file {self._name} not found")
        try:
            self._file = file = open_frames(self._name, self._path)
            self._data = data = self._dataset(file, self._path)
            self._ids = self._read_ids(file, len(data) if data.ndim else 0)
            if data.dtype.kind not in "iuf":
                raise PipelineError(f"{self._where}: {data.dtype} is neither integer nor float")
            if data.ndim not in (2, 3):
                raise PipelineError(
                    f"{self._where}: shape {data.shape}; frames are (n, height, width), "
                    "patterns (n, n_bins)"
                )
            self._is_frames = data.ndim == 3
            dtype = data.dtype.newbyteorder("=") if self._is_frames else np.dtype(np.float32)
            self._spec = ItemSpec.of(data.shape[1:], dtype)
            start = RunStart(
                run_id=Path(self._name).stem[:128],
                source=f"hdf5:{self._name}#{self._path}",
                items={"frame" if self._is_frames else "intensity": self._spec},
                expected=len(data),
            )
            if self._is_frames:
                return start
            axis, unit = self._read_axis(data)
            return start.evolve(unit=unit, constants={"axis": axis})
        except PipelineError:
            self.close()
            raise
        except READ_ERRORS as error:
            self.close()
            raise PipelineError(
                f"file {self._name} cannot be read: truncated or still being written "
                f"({one_line(error)})"
            ) from None

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` items."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Read frames into the memory that `allocate` gives."""
        self._allocate = allocate

    def pack(self, wanted: Callable[[], bool]) -> Packing | None:
        """Give the chunks of frames along while they are wanted."""
        codec = Rows(self._data).codec if self._is_frames else None
        if codec is None:
            return None
        self._wanted = wanted
        height, width = self._spec.shape
        tiles = ((0, 0, height, width),)
        return Packing(codec=codec, dtype=self._spec.dtype, tiles=tiles, flip=self._flip)

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield frames or patterns, some at a time."""
        yield from self._frames() if self._is_frames else self._patterns()
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _where(self) -> str:
        return f"file {self._name}: {self._path}"

    def _frames(self) -> Iterator[Batch | Failure]:
        rows = Rows(self._data)

        def read(first: int, out: NDArray[Any]) -> None:
            try:
                rows.read(first, out)
            except READ_ERRORS as error:
                raise PipelineError(self._unreadable(first, error)) from None
            for frame in out if self._flip else ():
                frame[...] = frame[::-1].copy()

        def chunks(seq: int) -> Chunks:
            chunk = rows.chunk(seq) if self._wanted() else None
            return () if chunk is None else (chunk,)

        return read_frames(
            range(self._first, len(self._ids)),
            self._ids,
            self._spec,
            read,
            allocate=self._allocate,
            at_once=rows.at_once,
            chunks=chunks,
        )

    def _patterns(self) -> Iterator[Batch | Failure]:
        for first in range(self._first, len(self._ids), BLOCK):
            end = min(first + BLOCK, len(self._ids))
            try:
                items: list[Batch | Failure] = [self._batch(first, end)]
            except READ_ERRORS:
                items = list(self._one_by_one(first, end))
            yield from items

    def _batch(self, first: int, end: int) -> Batch:
        return pattern_batch(first, self._ids[first:end], self._data[first:end])

    def _one_by_one(self, first: int, end: int) -> Iterator[Batch | Failure]:
        for row in range(first, end):
            try:
                yield self._batch(row, row + 1)
            except READ_ERRORS as error:
                yield Failure(row, int(self._ids[row]), "source", self._unreadable(row, error))

    def _unreadable(self, row: int, error: BaseException) -> str:
        return f"{self._where}[{row}] cannot be read ({one_line(error)})"

    def _dataset(self, file: h5py.File, path: str) -> h5py.Dataset:
        item = file.get(path)
        if not isinstance(item, h5py.Dataset):
            raise PipelineError(f"file {self._name}: no dataset {path}")
        return item

    def _read_ids(self, file: h5py.File, n: int) -> NDArray[np.int64]:
        if self._ids_path is None:
            return np.arange(n, dtype=np.int64)
        ids = self._dataset(file, self._ids_path)
        if ids.shape != (n,) or ids.dtype.kind not in "iu":
            raise PipelineError(
                f"file {self._name}: {self._ids_path} is {ids.dtype} {ids.shape}, "
                f"not {n} integers, one per item of {self._path}"
            )
        return np.asarray(ids[:], np.int64)

    def _read_axis(self, data: h5py.Dataset) -> tuple[NDArray[np.float64], Unit]:
        axes = np.atleast_1d(data.parent.attrs.get("axes", "."))
        name = axes[-1].decode() if isinstance(axes[-1], bytes) else str(axes[-1])
        item = data.parent.get(name) if name != "." else None
        if not isinstance(item, h5py.Dataset) or item.shape != data.shape[1:]:
            raise PipelineError(
                f"{self._where}: patterns without an axis; attribute 'axes' of "
                f"{data.parent.name} should name a dataset of {data.shape[1]} numbers"
            )
        units = item.attrs.get("unit", item.attrs.get("units", ""))
        unit = UNITS.get(units.decode() if isinstance(units, bytes) else str(units))
        if unit is None:
            raise PipelineError(
                f"file {self._name}: {item.name}: units {units!r} are none of {', '.join(UNITS)}"
            )
        axis = np.asarray(item[:], np.float64)
        if not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise PipelineError(f"file {self._name}: {item.name} is not finite and increasing")
        return axis, unit
