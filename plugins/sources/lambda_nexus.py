"""``lambda-nexus:PATH``: the archived frames of a LAMBDA detector, assembled from its modules.

Modules are matched by ``sequence_number``, never by position, because a module may have lost a
frame or a whole part. A frame of which any module is missing is a `Failure` that says which and in
which file; it is never filled with zeros. The numbers of all files are read at the start. A module
is read into memory that stays in the processor's cache, and from there flipped into the frame.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import h5py
import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import Field

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.lambda_modules import GAP, ModuleLayout
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, Packing, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.frames import (
    Allocate,
    Chunks,
    Rows,
    never,
    open_frames,
    own_memory,
    read_frames,
)
from phasewatch.plugins.sources.items import READ_ERRORS, check_same, one_line
from phasewatch.plugins.sources.lambda_canvas import Canvas
from phasewatch.plugins.sources.lambda_files import (
    DETECTOR,
    PartFile,
    RunFiles,
    find_run,
    read_part,
    read_pixel_mask,
)

ABSENT, TWICE = -1, -2

_log = structlog.get_logger(__name__)


def open_source(
    target: str, *, modules: Annotated[int, Field(ge=1)] | None = None
) -> "LambdaNexus":
    """Open an archived run.

    Parameters
    ----------
    target
        The folder of the run, one of its files, or its folder and prefix (``/data/RUN``).
    modules
        Number of modules of the detector; another number is refused. Without it a run that lacks
        the files of its highest modules looks like one of a smaller detector, whose frame has
        another size and origin; ``[calibration] shape`` catches that too.
    """
    return LambdaNexus(target, modules)


@dataclass(frozen=True)
class Index:
    """Where each frame of each module is.

    Attributes
    ----------
    numbers
        (n,) int64, every sequence number that any module has, ascending.
    part, row
        (n, n_modules) int32: number of the part and row in it; `row` is ABSENT or TWICE where the
        module has no such frame, or more than one.
    whole
        (n,) bool: every module has it, once, and has been written so far.
    """

    numbers: NDArray[np.int64]
    part: NDArray[np.int32]
    row: NDArray[np.int32]
    whole: NDArray[np.bool_]


def index_frames(parts: dict[tuple[int, int], PartFile], modules: tuple[int, ...]) -> Index:
    """Match the frames of `modules` by their sequence numbers."""
    numbers = np.unique(np.concatenate([p.numbers for p in parts.values()]))
    part = np.full((len(numbers), len(modules)), ABSENT, np.int32)
    row = np.full((len(numbers), len(modules)), ABSENT, np.int32)
    written = np.zeros((len(numbers), len(modules)), np.bool_)
    for column, module in enumerate(modules):
        seen = np.zeros(len(numbers), np.int64)
        for (owner, number), file in parts.items():
            if owner != module:
                continue
            at = np.searchsorted(numbers, file.numbers)
            part[at, column], row[at, column] = number, np.arange(len(at))
            written[at, column] = np.arange(len(at)) < file.rows
            seen += np.bincount(at, minlength=len(numbers))
        row[seen > 1, column] = TWICE
    whole: NDArray[np.bool_] = np.all(written & (row >= 0), axis=1)
    return Index(numbers, part, row, whole)


class LambdaNexus:
    """Source of the assembled frames of one archived run."""

    def __init__(self, target: str, modules: int | None = None) -> None:
        self._target = target
        self._modules = modules
        self._open: dict[int, tuple[int, h5py.File, Rows]] = {}  # module -> its open part
        self._problems: dict[tuple[int, int], str] = {}
        self._first = 0
        self._allocate: Allocate = own_memory
        self._wanted = never

    def start(self) -> RunStart:
        """Read what all files of the run say of themselves."""
        self._files = find_run(self._target, modules=self._modules)
        self._parts = self._read_parts(self._files)
        modules = self._files.modules
        first = {m: f for (m, _), f in reversed(self._parts.items())}
        for module in modules:
            if module not in first:
                raise PipelineError(
                    f"module {module}: {self._problems[module, self._files.parts[0]]}"
                )
        self._index = index_frames(self._parts, modules)
        heads = [first[m] for m in modules]
        try:
            layout = ModuleLayout.from_translations(
                [h.translation for h in heads], [h.shape for h in heads]
            )
            mask = layout.assemble_mask([read_pixel_mask(h) for h in heads])
        except CalibrationError as error:
            raise PipelineError(f"{heads[0].path}: {error}") from None
        self._canvas = Canvas(layout)
        self._scratch = [np.empty((1, *h.shape), h.dtype) for h in heads]
        dtype = np.result_type(np.int8, *(h.dtype.newbyteorder("=") for h in heads))
        saturation = min((h.saturation for h in heads if h.saturation), default=None)
        self._spec = ItemSpec.of(layout.canvas_shape, dtype)
        return RunStart(
            run_id=self._files.name[:128],
            source=f"lambda-nexus:{self._target}",
            items={"frame": self._spec},
            saturation=saturation,
            expected=max([len(self._index.numbers), *(h.planned for h in heads)]),
            digests={"sequence_numbers": hashlib.sha256(self._index.numbers.tobytes()).hexdigest()},
            constants={"mask": mask},
        )

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` frames."""
        check_same(run, self.start())
        self._first = n

    def lend(self, allocate: Allocate) -> None:
        """Assemble the frames in the memory that `allocate` gives."""
        self._allocate = allocate

    def pack(self, wanted: Callable[[], bool]) -> Packing | None:
        """Give the chunks of the modules along while they are wanted, if all are of one kind."""
        parts = list(self._parts.values())
        kinds = {(part.codec, part.dtype.newbyteorder("=").str) for part in parts}
        codec, dtype = next(iter(kinds))
        if len(kinds) > 1 or codec is None:
            return None
        self._wanted = wanted
        return Packing(codec=codec, dtype=dtype, tiles=self._canvas.tiles, flip=True, fill=int(GAP))

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield the frames in the order of the sequence numbers."""
        index, at_once = self._index, min(part.at_once for part in self._parts.values())
        turns = (np.flatnonzero(index.whole[1:] != index.whole[:-1]) + 1).tolist()
        later = [turn for turn in turns if turn > self._first]
        for first, stop in pairwise([self._first, *later, len(index.numbers)]):
            frames = range(first, stop)
            if frames and index.whole[first]:
                yield from read_frames(
                    frames,
                    index.numbers,
                    self._spec,
                    self._read,
                    allocate=self._allocate,
                    at_once=at_once,
                    chunks=self._chunks,
                )
                continue
            for frame in frames:
                yield Failure(frame, int(index.numbers[frame]), "source", self._missing(frame))
        self.close()

    def close(self) -> None:
        """Close what is open."""
        for _, file, _ in self._open.values():
            file.close()
        self._open.clear()

    def _read_parts(self, files: RunFiles) -> dict[tuple[int, int], PartFile]:
        parts: dict[tuple[int, int], PartFile] = {}
        first: dict[int, PartFile] = {}
        for key, path in sorted(files.paths.items()):
            try:
                part = read_part(path)
                _check_alike(part, first.get(key[0], part))
                parts[key] = part
                first.setdefault(key[0], part)
                if part.rows < len(part.numbers):
                    _log.warning(_short(part))
            except PipelineError as error:
                self._problems[key] = str(error)
                _log.warning(f"module {key[0]} missing: {error}")
        return parts

    def _read(self, first: int, out: NDArray[Any]) -> None:
        for frame, canvas in enumerate(out, first):
            self._canvas.fill_gaps(canvas)
            for column, counts in enumerate(self._scratch):
                self._read_module(frame, column, counts)
                self._canvas.place(canvas, column, counts[0])

    def _chunks(self, frame: int) -> Chunks:
        """Return what the modules of `frame` were decoded from, () if it is not had or wanted."""
        if not self._wanted():
            return ()
        parts, rows = self._index.part[frame].tolist(), self._index.row[frame].tolist()
        found = [
            self._rows(module, part).chunk(row)
            for module, part, row in zip(self._files.modules, parts, rows, strict=True)
        ]
        good = tuple(chunk for chunk in found if chunk is not None)
        return good if len(good) == len(found) else ()

    def _read_module(self, frame: int, column: int, out: NDArray[Any]) -> None:
        module = self._files.modules[column]
        part, row = int(self._index.part[frame, column]), int(self._index.row[frame, column])
        try:
            self._rows(module, part).read(row, out)
        except READ_ERRORS as error:
            raise PipelineError(
                f"frame {self._index.numbers[frame]}: module {module}: "
                f"file {self._parts[module, part].path}: data[{row}] cannot be read "
                f"({one_line(error)})"
            ) from None

    def _missing(self, frame: int) -> str:
        """Return what the first module that does not have `frame` lacks."""
        problems = (self._problem(frame, c, m) for c, m in enumerate(self._files.modules))
        return f"frame {self._index.numbers[frame]}: {next(filter(None, problems))}"

    def _problem(self, frame: int, column: int, module: int) -> str:
        part, row = int(self._index.part[frame, column]), int(self._index.row[frame, column])
        if row == TWICE:
            return f"module {module} has this sequence_number more than once"
        if row == ABSENT:
            return f"module {module} missing: {self._why_absent(frame, module)}"
        file = self._parts[module, part]
        return f"module {module} missing: {_short(file)}" if row >= file.rows else ""

    def _why_absent(self, frame: int, module: int) -> str:
        """Return why: the parts in which the other modules hold the frame are the likely ones."""
        likely = sorted({int(p) for p in self._index.part[frame] if p != ABSENT})
        for part in likely:
            if problem := self._problems.get((module, part)):
                return problem
        return (
            f"no such sequence_number in {self._files.paths[module, likely[0]]} or its other parts"
        )

    def _rows(self, module: int, part: int) -> Rows:
        if module in self._open and self._open[module][0] == part:
            return self._open[module][2]
        if module in self._open:
            self._open.pop(module)[1].close()
        file = open_frames(self._parts[module, part].path, f"{DETECTOR}/data")
        self._open[module] = part, file, Rows(file[f"{DETECTOR}/data"])
        return self._open[module][2]


def _short(part: PartFile) -> str:
    return f"file {part.path} holds {part.rows} of {len(part.numbers)} frames: still being written?"


def _check_alike(part: PartFile, first: PartFile | None) -> None:
    """Refuse a part that does not fit the first part of its module."""
    if first is None:
        return
    for name in ("shape", "dtype", "translation"):
        if getattr(part, name) != getattr(first, name):
            raise PipelineError(
                f"file {part.path}: {name} is {getattr(part, name)}, "
                f"in {first.path.name} it is {getattr(first, name)}"
            )
