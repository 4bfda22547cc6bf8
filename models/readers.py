"""The files a series comes in, each to the fields of `phasewatch.models.series.Series`.

Each reader returns ``axis``, ``intensity``, ``unit`` (None where the file does not name it) and
what else it found, not checked yet against each other.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError
from phasewatch.models.units import unit_of

if TYPE_CHECKING:
    import h5py


def read_npz(path: Path) -> dict[str, Any]:
    """Read an archive with the keys ``x`` and ``intensity``."""
    try:
        # numpy takes any other file for a pickle
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: not an .npz archive, or truncated")
        with np.load(path, allow_pickle=False) as archive:
            found = {}
            for key in ("x", "intensity", "order", "x_name", "order_name"):
                if key in archive.files:
                    found[key] = archive[key]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    for key in ("x", "intensity"):
        if key not in found:
            raise ModelError(f"{path}: key {key!r} is missing")
    order = found.get("order")
    if order is not None and order.dtype.kind not in "iuf":
        raise ModelError(f"{path}: order: numbers wanted, not {order.dtype}")
    return {
        "axis": found["x"],
        "intensity": found["intensity"],
        "unit": unit_of(str(found.get("x_name", ""))),
        "order": None if order is None else order.astype(np.float64),
        "order_name": str(found.get("order_name", "index" if order is None else "order")),
    }


def read_folder(folder: Path) -> dict[str, Any]:
    """Read the ``.xy`` files of a folder, in their natural order."""
    files = sorted(folder.glob("*.xy"), key=lambda p: _natural(p.name))
    if not files:
        simulated = folder / "series.npz"
        hint = f"; did you mean {simulated}?" if simulated.is_file() else ""
        raise ModelError(f"{folder}: no .xy file in it{hint}")
    axis: NDArray[np.float64] | None = None
    unit = None
    rows = []
    for file in files:
        named, table = read_xy(file)
        if axis is None:
            axis, unit = table[0], named or "2th_deg"
        elif table.shape[1] != len(axis) or not np.array_equal(table[0], axis):
            raise ModelError(f"{file}: its axis differs from that of {files[0].name}")
        rows.append(table[1].astype(np.float32))
    return {"axis": axis, "intensity": np.stack(rows), "unit": unit}


def read_xy(path: Path) -> tuple[str | None, NDArray[np.float64]]:
    """Read one ``.xy`` file: the unit its header names (or None), and (2, n_points) float64.

    The header is what comes before the first row of numbers alone, or begins with ``#``.
    """
    unit = None
    rows: list[list[float]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            words = line.lstrip("# ").split()
            unit = unit_of(words[0]) if words and unit is None else unit
            continue
        try:
            row = [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            if rows:
                raise ModelError(f"{path} line {number}: not a row of numbers") from None
            continue
        if len(row) < 2 or (rows and len(row) != len(rows[0])):
            if rows:
                raise ModelError(f"{path} line {number}: {len(row)} columns, not as before")
            continue
        rows.append(row)
    if not rows:
        raise ModelError(f"{path}: no row of numbers in it")
    return unit, np.array(rows)[:, :2].T.copy()


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts ``map_9`` before ``map_10``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def read_hdf5(path: Path, inside: str) -> dict[str, Any]:
    """Read the NXdata at `inside`; of a result of ours also ids and settings."""
    import h5py  # 0.2 s that the command line need not wait for

    with _hdf5_errors(path), _open(path) as file:
        group = file.get(inside)
        if not isinstance(group, h5py.Group):
            raise ModelError(f"{path}: no NXdata group {inside}; name one as {path}#/path")
        signal = _text(group.attrs.get("signal", "intensity"))
        axes = [_text(a) for a in np.atleast_1d(group.attrs.get("axes", ["axis"]))]
        data = {}
        for role, name in {"signal": signal, "axis": axes[-1]}.items():
            if not isinstance(group.get(name), h5py.Dataset):
                raise ModelError(f"{path}: {role} {inside}/{name} is missing")
            data[role] = group[name]
        named = data["axis"].attrs.get("unit", data["axis"].attrs.get("units", ""))
        more: dict[str, Any] = {}
        complete = slice(None)
        if isinstance(file.get("/entry/frame/seq"), h5py.Dataset):
            more["index"] = file["/entry/frame/seq"][()].astype(np.int64)
            complete = slice(len(more["index"]))  # written last: a live file may hold half an item
            more["ids"] = file["/entry/frame/id"][complete].astype(np.int64)
        start = file.get("/entry/provenance/start")
        if isinstance(start, h5py.Dataset):
            more |= _settings(path, start[()])
        return {
            "axis": data["axis"][()],
            "intensity": data["signal"][complete],
            "unit": unit_of(_text(named)) or unit_of(f"{axes[-1]} {_text(named)}"),
            **more,
        }


def _open(path: Path) -> "h5py.File":
    """Open `path`; also a result that is being written, or whose writer was killed."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError:
        if not path.is_file():
            raise
        return h5py.File(path, "r", swmr=True)


def _settings(path: Path, start: Any) -> dict[str, Any]:
    """Return baseline and normalise of the run that wrote `start`, its RunStart as JSON text."""
    where = f"{path}: /entry/provenance/start"
    try:
        settings = json.loads(_text(start)).get("settings", {})
        baseline, normalise = settings.get("baseline"), settings.get("normalise")
    except (ValueError, AttributeError):
        raise ModelError(f"{where}: not the JSON text of a run's start") from None
    found: dict[str, Any] = {}
    if baseline is not None:
        if not isinstance(baseline, dict):
            raise ModelError(f"{where}: settings.baseline is not a table")
        found["baseline"] = baseline
    if normalise is not None:
        found["normalise"] = str(normalise)
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@contextmanager
def _hdf5_errors(path: Path) -> Iterator[None]:
    """Name the file in what h5py raises for a corrupt or truncated one."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
