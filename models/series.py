"""Ordered patterns from a file: ``.npz``, a folder of ``.xy``, NeXus/HDF5, or a result of ours."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models import readers
from phasewatch.models.errors import ModelError
from phasewatch.models.units import UNITS

PATTERNS = "/entry/patterns"
HDF5 = {".h5", ".hdf5", ".nxs", ".hdf", ".cxi"}


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
    index
        (n,) int64, the position of each pattern in the stream it came from, rising: what a table
        of labels means. 0 .. n - 1 but in a result file, where items that failed are missing.
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
    index: NDArray[np.int64]
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
        found = readers.read_folder(file)
    elif not file.exists():
        raise ModelError(f"{file}: no such file or folder")
    elif file.suffix == ".npz":
        found = readers.read_npz(file)
    elif file.suffix.lower() in HDF5:
        found = readers.read_hdf5(file, inside or PATTERNS)
    else:
        raise ModelError(
            f"{file}: not a series: .npz, a folder of .xy, or {', '.join(sorted(HDF5))}"
        )
    return _series(file, **found | ({"unit": unit} if unit else {}))


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
    for name in ("order", "ids", "index"):
        if more.get(name) is not None and more[name].shape != (len(intensity),):
            raise ModelError(
                f"{where}: {name}: shape {more[name].shape} for {len(intensity)} patterns"
            )
    more.setdefault("ids", np.arange(len(intensity), dtype=np.int64))
    more.setdefault("index", np.arange(len(intensity), dtype=np.int64))
    digest = hashlib.sha256(axis.tobytes() + intensity.tobytes()).hexdigest()
    return Series(axis, unit, intensity, digest=digest, source=where.name, **more)
