"""``images:PATH``: single detector images that fabio reads (TIFF, EDF, CBF, ...).

PATH is one file, a folder, or a glob; several files come in natural order (``f2`` before ``f10``).
The ids are their positions in it, counted from 0: the numbers in file names are as often
temperatures as they are frame numbers.
"""

import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import fabio
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sources.items import check_same, frame_batch, native

SUFFIXES = (".tif", ".tiff", ".edf", ".cbf", ".mccd", ".mar3450", ".img")


def open_source(target: str, *, flip: bool = False) -> "Images":
    """Open the images that `target` names: a file, a folder, or a glob.

    `flip` reverses the rows, as the program did that the PONI was made with (Dioptas does).
    """
    return Images(target, flip)


def find_images(target: str) -> list[Path]:
    """Return the files that `target` names, in natural order.

    Raises
    ------
    PipelineError
        There are none.
    """
    path = Path(target)
    if path.is_dir():
        found = [p for p in path.iterdir() if _suffix(p) in SUFFIXES]
    elif path.is_file():
        return [path]
    else:
        found = [p for p in map(Path, glob(target)) if p.is_file()]
    if not found:
        raise PipelineError(f"images:{target}: no such image; a folder needs {', '.join(SUFFIXES)}")
    return sorted(sorted(found), key=_natural)


def read_image(path: Path) -> NDArray[Any]:
    """Return the one image (height, width) of `path`.

    Raises
    ------
    PipelineError
        It cannot be read, or is not one image of numbers.
    """
    try:
        with fabio.open(str(path)) as image:
            if image.nframes != 1:
                raise PipelineError(f"file {path} holds {image.nframes} frames, not one")
            data = np.asarray(image.data)
    except PipelineError:
        raise
    except Exception as error:  # each of fabio's readers fails in its own way
        raise PipelineError(f"file {path} is not a readable image ({one_line(error)})") from None
    if data.ndim != 2 or data.dtype.kind not in "iuf":
        raise PipelineError(f"file {path}: {data.dtype} {data.shape} is not an image of numbers")
    return native(data)


class Images:
    """Source of single images; the first that can be read says what all must be like."""

    def __init__(self, target: str, flip: bool) -> None:
        self._target = target
        self._flip = flip
        self._first = 0

    def start(self) -> RunStart:
        """Find the files and read the first image."""
        self._paths = find_images(self._target)
        spec, problem = None, ""
        for path in self._paths:
            try:
                first = read_image(path)
            except PipelineError as error:
                problem = problem or str(error)
            else:
                spec = ItemSpec.of(first.shape, first.dtype)
                break
        if spec is None:
            raise PipelineError(problem)
        self._spec = spec
        return RunStart(
            run_id=Path(self._target).stem[:128] or "images",
            source=f"images:{self._target}",
            items={"frame": spec},
            expected=len(self._paths),
        )

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` images."""
        check_same(run, self.start())
        self._first = n

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield one image after the other."""
        for seq, path in enumerate(self._paths[self._first :], self._first):
            try:
                image = read_image(path)
                if ItemSpec.of(image.shape, image.dtype) != self._spec:
                    raise PipelineError(
                        f"file {path}: {image.dtype} {image.shape}, "
                        f"not {np.dtype(self._spec.dtype)} {self._spec.shape} as the first image"
                    )
            except PipelineError as error:
                yield Failure(seq, seq, "source", str(error))
            else:
                yield frame_batch(seq, seq, image[::-1] if self._flip else image)

    def close(self) -> None:
        """Nothing is held open."""


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    return Path(name).suffix


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(t), "") if t.isdecimal() else (-1, t) for t in re.split(r"(\d+)", path.name)]
