"""The NeXus part files of a LAMBDA detector: their names, and what one of them holds.

A run is the files ``RUN_mM_partPPPPP.nxs`` (or ``RUN_mM.nxs`` where it was not split) of one
folder: M the module, counted from 1, P the part, counted from 0 (-1 here where not split). Each
holds under ``/entry/instrument/detector`` the frames of one module, ``data`` (n, height, width),
and their numbers, ``sequence_number`` (n,), which run on across the parts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters)
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sources.frames import Rows, open_file
from phasewatch.plugins.sources.items import DAMAGED

DETECTOR = "entry/instrument/detector"
Key = tuple[int, int]  # module, part
_NAME = re.compile(r"(?P<run>.+)_m(?P<module>\d+)(?P<part>_part\d+)?\.nxs")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run by (module, part); every pair has a path, whether the file is there.

    Attributes
    ----------
    modules
        1 .. number of modules.
    parts
        Numbers as in the names, ascending.
    """

    name: str
    paths: Mapping[Key, Path]
    modules: tuple[int, ...]
    parts: tuple[int, ...]


@dataclass(frozen=True)
class PartFile:
    """One readable part of one module.

    Attributes
    ----------
    numbers
        (n,) int64, ``sequence_number``.
    rows
        Frames that ``data`` holds; fewer than n while the file is being written.
    translation
        (x, y) of the module in pixels.
    saturation
        ``saturation_value``, None where there is none.
    planned
        ``collection/frame_numbers``: frames of the whole run, 0 where it was not filled in.
    at_once, codec
        Of its frames, as `Rows` says.
    """

    path: Path
    numbers: NDArray[np.int64]
    rows: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    translation: tuple[float, float]
    saturation: float | None
    planned: int
    at_once: int
    codec: str | None


def find_run(target: str, *, modules: int | None = None) -> RunFiles:
    """Return the files of the one run that `target` names.

    Parameters
    ----------
    target
        A folder that holds one run, any file of the run, or its folder and prefix (``/data/RUN``).
    modules
        Number of modules of the detector; None takes the highest in the names.

    Raises
    ------
    PipelineError
        There is no such run, the folder holds several, or a module has no file.
    """
    path = Path(target)
    run, files = list_run(target)
    if not files:
        wanted = "RUN" if path.is_dir() else path.name
        raise PipelineError(f"{path}: no file named {wanted}_m1_part00000.nxs or alike")
    folder = next(iter(files.values())).parent
    numbers = _all_modules({module for module, _ in files}, modules, folder)
    return RunFiles(run, pairs(files, numbers), numbers, tuple(sorted({p for _, p in files})))


def list_run(target: str, name: str | None = None) -> tuple[str, dict[Key, Path]]:
    """Return the name and the files of the one run that `target` names; ("", {}) where none is.

    Parameters
    ----------
    target
        As for `find_run`; it need not be there.
    name
        Take the run of this name, whatever others there are.

    Raises
    ------
    PipelineError
        The folder holds several runs, or `target` is another file; OSError: it cannot be read.
    """
    path = Path(target)
    folder, wanted = (path, None) if path.is_dir() else (path.parent, path.name)
    if wanted is not None and path.exists():
        wanted, _ = run_of(path)
    runs: dict[str, dict[Key, Path]] = {}
    for entry in sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []:
        if match := _NAME.fullmatch(entry):
            key = int(match["module"]), _part(match)
            runs.setdefault(match["run"], {})[key] = folder / entry
    if (chosen := name or wanted) is not None:
        return chosen, runs.get(chosen, {})
    if len(runs) > 1:
        raise PipelineError(
            f"{path} holds {len(runs)} runs; name one: {', '.join(str(path / r) for r in runs)}"
        )
    return next(iter(runs.items()), ("", {}))


def run_of(path: Path) -> tuple[str, Key]:
    """Return which run the file `path` is of by its name, and which (module, part) of it.

    Raises
    ------
    PipelineError
        It is not named as such a file.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise PipelineError(f"{path}: not named as a LAMBDA file, RUN_m1_part00000.nxs")
    return match["run"], (int(match["module"]), _part(match))


def pairs(files: Mapping[Key, Path], modules: tuple[int, ...]) -> dict[Key, Path]:
    """Return the path of each module's file of each part in `files`, be it there or not."""
    found = {}
    for (_, part), path in files.items():
        match = _NAME.fullmatch(path.name)
        assert match is not None
        for module in modules:
            name = f"{match['run']}_m{module}{match['part'] or ''}.nxs"
            found[module, part] = path.with_name(name)
    return found


def read_part(path: Path) -> PartFile:
    """Read what `path` says of itself, without its frames.

    Raises
    ------
    PipelineError
        It is not there, cannot be opened (truncated, still being written), or lacks a field.
    """
    if not path.exists():
        raise PipelineError(f"file {path} not found")
    if path.stat().st_size == 0:
        raise PipelineError(f"file {path} is empty: still being written?")
    try:
        with open_file(path) as file:
            data = _field(file, path, "data", 3)
            numbers = _field(file, path, "sequence_number", 1)
            translation = _field(file, path, "translation/distance", 1)
            if data.dtype.kind not in "iu" or numbers.dtype.kind not in "iu":
                raise PipelineError(f"file {path}: data and sequence_number must be integers")
            if translation.size < 2 or not np.all(np.isfinite(translation[:2])):
                raise PipelineError(f"file {path}: translation/distance is not (x, y, z) pixels")
            rows = Rows(data)
            x, y = (float(v) for v in translation[:2])
            return PartFile(
                path=path,
                numbers=numbers[:].astype(np.int64),
                rows=int(data.shape[0]),
                shape=(int(data.shape[1]), int(data.shape[2])),
                dtype=data.dtype,
                translation=(x, y),
                saturation=_positive(file, "saturation_value") or None,
                planned=int(_positive(file, "collection/frame_numbers")),
                at_once=rows.at_once,
                codec=rows.codec,
            )
    except PipelineError:
        raise
    except DAMAGED as error:
        raise PipelineError(
            f"file {path} cannot be read: truncated or still being written ({one_line(error)})"
        ) from None


def read_pixel_mask(part: PartFile) -> NDArray[np.uint32]:
    """Return the NeXus pixel mask (height, width) of the module; zeros where there is none.

    Raises
    ------
    PipelineError
        It cannot be read, or is not one word of bits per pixel.
    """
    name = f"{DETECTOR}/pixel_mask"
    try:
        with open_file(part.path) as file:
            if name not in file:
                return np.zeros(part.shape, np.uint32)
            mask: NDArray[Any] = np.asarray(file[name])
    except DAMAGED as error:
        raise PipelineError(
            f"file {part.path}: pixel_mask cannot be read ({one_line(error)})"
        ) from None
    if mask.size != part.shape[0] * part.shape[1] or mask.dtype.kind not in "iu":
        raise PipelineError(
            f"file {part.path}: pixel_mask is {mask.dtype} {mask.shape}, not bits {part.shape}"
        )
    return mask.reshape(part.shape).astype(np.uint32)


def _all_modules(present: set[int], n: int | None, folder: Path) -> tuple[int, ...]:
    """Return 1 .. n, or refuse: without a module the frame has another size and origin."""
    due = max(present) if n is None else n
    found = f"{', '.join(f'm{m}' for m in sorted(present))} found in {folder}"
    first_missing = next(m for m in count(1) if m not in present)
    if first_missing <= due:
        raise PipelineError(f"module {first_missing} has no file; {found}")
    if len(present) != due:
        raise PipelineError(f"modules are numbered from 1 to {due}; {found}")
    return tuple(range(1, due + 1))


def _part(match: re.Match[str]) -> int:
    return int((match["part"] or "_part-1").removeprefix("_part"))


def _field(file: h5py.File, path: Path, name: str, ndim: int) -> h5py.Dataset:
    item = file.get(f"{DETECTOR}/{name}")
    if not isinstance(item, h5py.Dataset) or item.ndim != ndim:
        raise PipelineError(f"file {path}: no {DETECTOR}/{name} with {ndim} axes")
    return item


def _positive(file: h5py.File, name: str) -> float:
    item = file.get(f"{DETECTOR}/{name}")
    if not isinstance(item, h5py.Dataset) or item.size != 1 or item.dtype.kind not in "iuf":
        return 0.0
    value = float(np.asarray(item[()]).reshape(-1)[0])
    return value if 0 < value < np.inf else 0.0
