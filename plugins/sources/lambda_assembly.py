"""Frames of a LAMBDA detector, assembled from the part files of its modules.

A module is read into memory that stays in the processor's cache, and from there flipped into the
frame. A frame of which any module is missing is a `Failure` that says which and in which file; it
is never filled with zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.lambda_modules import GAP, ModuleLayout
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, Packing
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
from phasewatch.plugins.sources.items import READ_ERRORS
from phasewatch.plugins.sources.lambda_canvas import Canvas
from phasewatch.plugins.sources.lambda_files import DETECTOR, PartFile, read_pixel_mask
from phasewatch.plugins.sources.lambda_index import Held


class Assembly:
    """Reads frames of modules that are like `heads`, one part of each module, in order.

    Attributes
    ----------
    spec
        What a frame is like.
    mask
        (height, width) bool, true = invalid: between the modules, and by their own masks.
    saturation
        The lowest of the modules'; None where none says.

    Raises
    ------
    PipelineError
        The modules overlap, or the mask of one cannot be read.
    """

    def __init__(self, heads: Sequence[PartFile]) -> None:
        try:
            layout = ModuleLayout.from_translations(
                [h.translation for h in heads], [h.shape for h in heads]
            )
            self.mask = layout.assemble_mask([read_pixel_mask(h) for h in heads])
        except CalibrationError as error:
            raise PipelineError(f"{heads[0].path}: {error}") from None
        dtype = np.result_type(np.int8, *(h.dtype.newbyteorder("=") for h in heads))
        self.spec = ItemSpec.of(layout.canvas_shape, dtype)
        self.saturation = min((h.saturation for h in heads if h.saturation), default=None)
        self._canvas = Canvas(layout)
        self._scratch = [np.empty((1, *h.shape), h.dtype) for h in heads]
        self._open: dict[int, tuple[PartFile, h5py.File, Rows]] = {}  # module -> its open part
        self._allocate: Allocate = own_memory
        self._codec: str | None = None
        self._wanted = never

    def lend(self, allocate: Allocate) -> None:
        """Assemble the frames in the memory that `allocate` gives."""
        self._allocate = allocate

    def pack(self, wanted: Callable[[], bool], parts: Sequence[PartFile]) -> Packing | None:
        """Give the chunks of the modules along while they are wanted, if `parts` are of a kind."""
        kinds = {(part.codec, part.dtype.newbyteorder("=").str) for part in parts}
        codec, dtype = next(iter(kinds))
        if len(kinds) > 1 or codec is None:
            return None
        self._wanted, self._codec = wanted, codec
        return Packing(codec=codec, dtype=dtype, tiles=self._canvas.tiles, flip=True, fill=int(GAP))

    def frames(self, held: Held, first: int, stop: int) -> Iterator[Batch | Failure]:
        """Yield the frames at the positions [first, stop) of `held.index`; these are their seqs."""
        index, at_once = held.index, min((p.at_once for p in held.parts.values()), default=1)
        turns = (np.flatnonzero(index.whole[1:] != index.whole[:-1]) + 1).tolist()
        between = [turn for turn in turns if first < turn < stop]
        for begin, end in pairwise([first, *between, stop]):
            frames = range(begin, end)
            if frames and index.whole[begin]:
                yield from read_frames(
                    frames,
                    index.numbers,
                    self.spec,
                    lambda frame, out: self._read(held, frame, out),
                    allocate=self._allocate,
                    at_once=at_once,
                    chunks=lambda frame: self._chunks(held, frame),
                )
                continue
            for frame in frames:
                yield Failure(frame, int(index.numbers[frame]), "source", held.missing(frame))

    def close(self) -> None:
        """Close what is open; `frames` opens it again."""
        for _, file, _ in self._open.values():
            file.close()
        self._open.clear()

    def _read(self, held: Held, first: int, out: NDArray[Any]) -> None:
        for frame, canvas in enumerate(out, first):
            self._canvas.fill_gaps(canvas)
            for column, counts in enumerate(self._scratch):
                self._read_module(held, frame, column, counts)
                self._canvas.place(canvas, column, counts[0])

    def _read_module(self, held: Held, frame: int, column: int, out: NDArray[Any]) -> None:
        module, row = held.modules[column], int(held.index.row[frame, column])
        part = held.parts[module, int(held.index.part[frame, column])]
        try:
            self._rows(module, part).read(row, out)
        except READ_ERRORS as error:
            raise PipelineError(
                f"frame {held.index.numbers[frame]}: module {module}: "
                f"file {part.path}: data[{row}] cannot be read ({one_line(error)})"
            ) from None

    def _chunks(self, held: Held, frame: int) -> Chunks:
        """Return what the modules of `frame` were decoded from, () if it is not had or wanted."""
        if not self._wanted():
            return ()
        good = []
        for column, module in enumerate(held.modules):
            part = held.parts[module, int(held.index.part[frame, column])]
            rows = self._rows(module, part)
            chunk = rows.chunk(int(held.index.row[frame, column]))
            if chunk is None or rows.codec != self._codec:
                return ()
            good.append(chunk)
        return tuple(good)

    def _rows(self, module: int, part: PartFile) -> Rows:
        if module in self._open and self._open[module][0] is part:
            return self._open[module][2]
        if module in self._open:
            self._open.pop(module)[1].close()
        file = open_frames(part.path, f"{DETECTOR}/data")
        self._open[module] = part, file, Rows(file[f"{DETECTOR}/data"])
        return self._open[module][2]
