"""``extra-data:RUN#source,key``: the images of one detector in files of European XFEL's format.

RUN is a folder or one file; EXtra-data opens it. Several modules that are sources of their own are
one detector where the source has a ``*`` in place of their numbers. A train in which the detector
has nothing is a gap, missing in the loss table; one in which modules have different numbers of
pulses, or whose images cannot be read, is as many Failures. Frames are read straight into memory
that is lent where nothing has to be put in another order.

Ids: `phasewatch.plugins.sources.trains`. Times: those of the trains, where the files have one for
each of them, else none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import DTYPES, MessageError
from phasewatch.plugins.sources.axes import check_axes, frame_of, ordered, write_frame
from phasewatch.plugins.sources.frames import Allocate, own_memory, read_frames
from phasewatch.plugins.sources.frames import Rows as FrameRows
from phasewatch.plugins.sources.items import DAMAGED, check_same
from phasewatch.plugins.sources.names import listed, matching
from phasewatch.plugins.sources.run_files import open_run, rows_of, selected, times_of
from phasewatch.plugins.sources.run_items import items_of, parse_slice
from phasewatch.plugins.sources.trust import check_item

BROKEN = (*DAMAGED, IndexError, AttributeError)


def open_source(
    target: str,
    *,
    axes: str | None = None,
    trains: str | None = None,
    train_ids: str | None = None,
    pulses: str | None = None,
) -> "ExtraData":
    """Replay a run.

    Parameters
    ----------
    target
        ``RUN#source,key``.
    axes
        What the axes of the dataset are, a letter for each (see `phasewatch.plugins.sources.axes`);
        the first is ``p``. May be left out where an entry is (rows, columns).
    trains, train_ids
        Which trains, ``START:STOP`` or ``START:STOP:STEP``: by position in the run, by id.
    pulses
        Which pulses of each train, by position, written as `trains` is.
    """
    run, hash_, what = target.partition("#")
    source, _, key = what.rpartition(",")
    check_axes(axes)
    if axes is not None and not axes.startswith("p"):
        raise PipelineError(f'axes "{axes}": the first axis in a file are the pulses: "p{axes}"')
    chosen = {
        "trains": parse_slice(trains, "trains"),
        "train_ids": parse_slice(train_ids, "train_ids"),
        "pulses": parse_slice(pulses, "pulses"),
    }
    return ExtraData(Path(run), source if hash_ else "", key, axes, chosen)


class ExtraData:
    """Source of the images in a run."""

    def __init__(
        self, path: Path, source: str, key: str, axes: str | None, chosen: dict[str, slice]
    ) -> None:
        self._path, self._source, self._key, self._axes = path, source, key, axes
        self._chosen = chosen
        self._run: Any = None
        self._first = 0
        self._allocate: Allocate = own_memory

    def start(self) -> RunStart:
        """Open the files and say what is in them."""
        try:
            return self._start()
        except PipelineError as error:
            self.close()
            raise PipelineError(f"extra-data:{self._path}: {error}") from None
        except BROKEN as error:
            self.close()
            raise PipelineError(f"extra-data:{self._path}: {one_line(error)}") from None

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` items."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Read frames into the memory that `allocate` gives."""
        self._allocate = allocate

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield frames, some at a time."""
        ids = self._items.ids
        frames = range(self._first, len(ids))
        for item in read_frames(frames, ids, self._spec, self._read, allocate=self._allocate):
            if isinstance(item, Batch) and self._times is not None:
                yield Batch(item.seq, item.ids, self._times[item.seq], item.arrays)
            else:
                yield item
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._run is not None:
            for file in self._run.files:
                file.close()
            self._run = None

    def _start(self) -> RunStart:
        self._run = run = open_run(self._path)
        datas = self._datas()
        trains = selected(run.train_ids, self._chosen["trains"], self._chosen["train_ids"])
        self._paths = [data.hdf5_data_path for data in datas]
        self._rows = [rows_of(data) for data in datas]
        self._items = items = items_of(
            trains,
            self._rows,
            self._chosen["pulses"],
            all_trains=all(part.step is None for part in self._chosen.values()),
        )
        try:
            self._word = word_of(datas[0].entry_shape, self._axes, self._key)
            self._spec = spec_of(datas, self._word)
        except MessageError as error:
            raise PipelineError(f"source {self._source}: {error}") from None
        self._times = times_of(run, items.train)
        return RunStart(
            run_id=self._path.name[:128] or "run",
            source=f"extra-data:{self._path}#{self._source},{self._key}"[:4096],
            items={"frame": self._spec},
            expected=items.expected,
        )

    def _datas(self) -> list[Any]:
        """Return EXtra-data's view of the key of each module."""
        sources = sorted(self._run.all_sources)
        names = matching(self._source, sources)
        if not names:
            asked = f'no source "{self._source}"' if self._source else "not RUN#source,key"
            raise PipelineError(f"{asked}; there are: {listed(sources)}")
        for name in names:
            keys = self._run.keys_for_source(name)
            if self._key not in keys:
                raise PipelineError(
                    f'source {name} has no key "{self._key}"; there are: {listed(keys)}'
                )
        return [self._run[name, self._key] for name in names]

    def _read(self, first: int, out: NDArray[Any]) -> None:
        """Write the frames from `first` on into `out`; those in a row in a train at once."""
        at = 0
        while at < len(out):
            n = 1
            while at + n < len(out) and self._follows(first + at + n - 1):
                n += 1
            self._read_train(first + at, out[at : at + n])
            at += n

    def _follows(self, seq: int) -> bool:
        same = self._items.train[seq + 1] == self._items.train[seq]
        return bool(same and self._items.pulse[seq + 1] == self._items.pulse[seq] + 1)

    def _read_train(self, seq: int, out: NDArray[Any]) -> None:
        train, pulse = int(self._items.train[seq]), int(self._items.pulse[seq])
        modules = [module.get(train) for module in self._rows]
        there = [rows for rows in modules if rows is not None and rows.count]
        if len(there) < len(modules) or len({rows.count for rows in there}) != 1:
            counts = [0 if rows is None else rows.count for rows in modules]
            raise PipelineError(f"train {train}: pulses of the modules: {counts}")
        try:
            parts = []
            for rows, path in zip(there, self._paths, strict=True):
                data, first = rows.file.file[path], rows.first + pulse
                if first + len(out) > len(data):
                    raise IndexError(f"rows {first} on of {len(data)}: cut off")
                parts.append((data, slice(first, first + len(out))))
            if len(parts) == 1 and self._word == "pyx":
                FrameRows(parts[0][0]).read(parts[0][1].start, out)
                return
            views = [ordered(data[part], self._word) for data, part in parts]
        except BROKEN as error:
            raise PipelineError(f"train {train} cannot be read ({one_line(error)})") from None
        for k in range(len(out)):
            write_frame(views, k, out[k])


def word_of(entry: tuple[int, ...], axes: str | None, key: str) -> str:
    """Return the axes of a dataset whose entries, one for each pulse, have the shape `entry`.

    Raises
    ------
    MessageError
        They are no images, or could be read in more than one way.
    """
    if axes is not None and len(axes) != 1 + len(entry):
        raise MessageError(f'{key} has {entry} for each pulse, which is not axes = "{axes}"')
    if len(entry) < 2:
        raise MessageError(f"{key} has {entry} for each pulse: not an image")
    if axes is None and len(entry) > 2:
        raise MessageError(
            f'{key} has {entry} for each pulse: set axes = "p0yx" or "pmyx" '
            "(p pulses, m modules, y rows, x columns, 0 first entry only)"
        )
    return axes or "pyx"


def spec_of(datas: Sequence[Any], axes: str) -> ItemSpec:
    """Return what a frame is like that is made of the datasets `datas`.

    Raises
    ------
    MessageError
        They are no images, or do not fit together.
    """
    for data in datas:
        if data.dtype.newbyteorder("<").str not in DTYPES:
            raise MessageError(f"{data.key} is {data.dtype}: not an image")
    empty = [np.empty((0, *data.entry_shape), data.dtype) for data in datas]
    spec = frame_of([ordered(array, axes) for array in empty])
    check_item(spec, "frame")
    return spec
