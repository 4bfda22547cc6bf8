"""Which frame of which module is where, and why one is not there.

Modules are matched by ``sequence_number``, never by position, because a module may have lost a
frame or a whole part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.lambda_files import Key, PartFile

ABSENT, TWICE = -1, -2


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


@dataclass(frozen=True)
class Held:
    """Parts that could be read, and the frames in them.

    Attributes
    ----------
    modules
        1 .. number of modules.
    parts
        By (module, part), in that order.
    problems
        Why a part is not among them.
    """

    modules: tuple[int, ...]
    parts: Mapping[Key, PartFile]
    problems: Mapping[Key, str]
    paths: Mapping[Key, Path]
    index: Index

    def missing(self, frame: int) -> str:
        """Return what the first module that does not have the frame at position `frame` lacks."""
        problems = (self._problem(frame, c, m) for c, m in enumerate(self.modules))
        return f"frame {self.index.numbers[frame]}: {next(filter(None, problems))}"

    def _problem(self, frame: int, column: int, module: int) -> str:
        part, row = int(self.index.part[frame, column]), int(self.index.row[frame, column])
        if row == TWICE:
            return f"module {module} has this sequence_number more than once"
        if row == ABSENT:
            return f"module {module} missing: {self._why_absent(frame, module)}"
        file = self.parts[module, part]
        return f"module {module} missing: {short(file)}" if row >= file.rows else ""

    def _why_absent(self, frame: int, module: int) -> str:
        """Return why: the parts in which the other modules hold the frame are the likely ones."""
        likely = sorted({int(p) for p in self.index.part[frame] if p != ABSENT})
        for part in likely:
            if problem := self.problems.get((module, part)):
                return problem
        return f"no such sequence_number in {self.paths[module, likely[0]]} or its other parts"


def index_frames(parts: Mapping[Key, PartFile], modules: tuple[int, ...]) -> Index:
    """Match the frames of `modules` by their sequence numbers."""
    none: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    numbers = np.unique(np.concatenate([*none, *(p.numbers for p in parts.values())]))
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


def short(part: PartFile) -> str:
    """Say that `part` has fewer frames than numbers."""
    return f"file {part.path} holds {part.rows} of {len(part.numbers)} frames: still being written?"


def check_alike(part: PartFile, first: PartFile) -> None:
    """Check that `part` fits the first part of its module.

    Raises
    ------
    PipelineError
        It is of another shape, dtype or place.
    """
    for name in ("shape", "dtype", "translation"):
        if getattr(part, name) != getattr(first, name):
            raise PipelineError(
                f"file {part.path}: {name} is {getattr(part, name)}, "
                f"in {first.path.name} it is {getattr(first, name)}"
            )
