"""Ordered patterns from a file: ``.npz``, a folder of ``.xy``, NeXus/HDF5, or a result of ours."""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError

UNITS = ("2th_deg", "q_nm^-1", "q_A^-1")
PATTERNS = "/entry/patterns"
_HDF5 = {".h5", ".hdf5", ".nxs", ".hdf", ".cxi"}


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Ordered patterns on one axis.

    Attributes
    ----------
    axis
        (n_points,) float64 in `unit`, increasing.
    intensity
        (n, n_points) float32; NaN = empty bin.
    ids
        (n,) int64, the facility's numbers where known, else 0 .. n - 1.
    order, order_name
        The external variable (n,) float64, such as a temperature, or None; and its name.
    baseline, normalise
        What was done to the patterns: settings of the chain that made them, or none.
    digest
        sha256 of axis and intensity.
    source
        Name of the file or folder.
    """

    axis: NDArray[np.float64]
    unit: str
    intensity: NDArray[np.float32]
    ids: NDArray[np.int64]
    digest: str
    source: str
    order: NDArray[np.float64] | None = None
    order_name: str = "index"
    baseline: dict[str, Any] = field(default_factory=lambda: {"method": "none"})
    normalise: str = "none"

    def __len__(self) -> int:
        return len(self.intensity)


def read_series(path: str | Path, *, unit: str | None = None) -> Series:
    """Read a series.

    Parameters
    ----------
    path
        ``FILE.npz`` (keys ``x`` and ``intensity``; perhaps ``order``, ``x_name``, ``order_name``),
        a folder of ``.xy`` files in their natural order, or an HDF5 file, ``FILE.h5#/path`` where
        its NXdata is not at ``/entry/patterns``.
    unit
        Of the axis, where the file does not say it: ``2th_deg``, ``q_nm^-1`` or ``q_A^-1``. ``.xy``
        files without a header are taken to be in ``2th_deg``.

    Raises
    ------
    ModelError
        Names the file, and what in it is missing or wrong.
    """
    if unit is not None and unit not in UNITS:
        raise ModelError(f"unit {unit!r} is not one of {', '.join(UNITS)}")
    text, _, inside = str(path).partition("#")
    file = Path(text)
    if file.is_dir():
        return _read_xy(file, unit)
    if not file.exists():
        raise ModelError(f"{file}: no such file or folder")
    if file.suffix == ".npz":
        return _read_npz(file, unit)
    if file.suffix.lower() in _HDF5:
        return _read_hdf5(file, inside or PATTERNS, unit)
    raise ModelError(f"{file}: not a series: .npz, a folder of .xy, or {', '.join(sorted(_HDF5))}")


def unit_of(name: str) -> str | None:
    """Return our name of the unit in an axis' name, such as ``q (1/A)``; None when it has none."""
    if name in UNITS:
        return name
    plain = re.sub(r"[\s_*{}()\[\]]", "", name.lower()).replace("å", "a")
    if re.search(r"(2|two)-?(th|theta|θ)", plain) and "rad" not in plain:
        return "2th_deg"
    if plain.startswith("q"):
        if re.search(r"1/a|a(ngstrom)?\^?-1", plain):
            return "q_A^-1"
        if re.search(r"1/nm|nm\^?-1", plain):
            return "q_nm^-1"
    return None


def _series(where: Path, axis: Any, intensity: Any, unit: str | None, **more: Any) -> Series:
    """Check what was read and make the series."""
    try:
        axis = np.ascontiguousarray(axis, "<f8")
        intensity = np.ascontiguousarray(intensity, "<f4")
    except (TypeError, ValueError):
        raise ModelError(f"{where}: axis and intensity must be numbers") from None
    if intensity.ndim != 2:
        raise ModelError(f"{where}: intensity: shape {intensity.shape}, not (n, n_points)")
    if axis.ndim != 1 or len(axis) != intensity.shape[1]:
        raise ModelError(
            f"{where}: the axis has shape {axis.shape}, the patterns {intensity.shape[1]} points"
        )
    if len(intensity) == 0:
        raise ModelError(f"{where}: no pattern in it")
    if len(axis) < 2 or not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
        raise ModelError(f"{where}: the axis must have 2 or more finite values that increase")
    if unit is None:
        raise ModelError(f"{where}: the axis' unit is not known; give one of {', '.join(UNITS)}")
    for name in ("order", "ids"):
        if more.get(name) is not None and more[name].shape != (len(intensity),):
            raise ModelError(
                f"{where}: {name}: shape {more[name].shape} for {len(intensity)} patterns"
            )
    more.setdefault("ids", np.arange(len(intensity), dtype=np.int64))
    digest = hashlib.sha256(axis.tobytes() + intensity.tobytes()).hexdigest()
    return Series(axis, unit, intensity, digest=digest, source=where.name, **more)


def _read_npz(path: Path, unit: str | None) -> Series:
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
    return _series(
        path,
        found["x"],
        found["intensity"],
        unit or unit_of(str(found.get("x_name", ""))),
        order=None if order is None else order.astype(np.float64),
        order_name=str(found.get("order_name", "order" if order is not None else "index")),
    )


def _read_xy(folder: Path, unit: str | None) -> Series:
    files = sorted(folder.glob("*.xy"), key=lambda p: _natural(p.name))
    if not files:
        raise ModelError(f"{folder}: no .xy file in it")
    axis: NDArray[np.float64] | None = None
    rows = []
    for file in files:
        named, table = read_xy(file)
        if axis is None:
            axis, unit = table[0], unit or named or "2th_deg"
        elif table.shape[1] != len(axis) or not np.array_equal(table[0], axis):
            raise ModelError(f"{file}: its axis differs from that of {files[0].name}")
        rows.append(table[1].astype(np.float32))
    return _series(folder, axis, np.stack(rows), unit)


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


def _read_hdf5(path: Path, inside: str, unit: str | None) -> Series:
    import h5py  # 0.2 s that the command line need not wait for

    with _hdf5_errors(path), h5py.File(path, "r") as file:
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
        if isinstance(file.get("/entry/frame/id"), h5py.Dataset):
            more["ids"] = file["/entry/frame/id"][()].astype(np.int64)
        start = file.get("/entry/provenance/start")
        if isinstance(start, h5py.Dataset):
            more |= _settings(path, start[()])
        return _series(
            path,
            data["axis"][()],
            data["signal"][()],
            unit or unit_of(_text(named)) or unit_of(f"{axes[-1]} {_text(named)}"),
            **more,
        )


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
