"""Reads back the truth of a simulated run."""

import csv
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.peaks import PARTS
from phasewatch.pipeline.errors import PipelineError


def read_truth(path: Path) -> tuple[NDArray[np.int64], Floats, list[str]]:
    """Read ``truth.csv`` of a simulated run: index (n,), pressure in GPa (n,), class (n,).

    Raises
    ------
    PipelineError
        It is missing, or a column is.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        index = np.array([int(row["index"]) for row in rows], dtype=np.int64)
        pressure = np.array([float(row["pressure_gpa"]) for row in rows])
        return index, pressure, [row["label"] for row in rows]
    except (OSError, KeyError, ValueError) as error:
        raise PipelineError(
            f"{path}: columns index, pressure_gpa, label are expected: {error}"
        ) from None


def read_peaks(path: Path) -> tuple[Floats, NDArray[np.bool_]]:
    """Read ``peaks.npz`` of a simulated run: where the Bragg peaks of its patterns truly are.

    Returns
    -------
    axis
        (N,) two theta in deg.
    mask
        (n, N), true where a peak of any phase that is present lies (see `twin.peaks`).

    Raises
    ------
    PipelineError
        It is missing or is not what its name says.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            axis = np.asarray(file["axis"], dtype=np.float64)
            packed = np.bitwise_or.reduce([file[part] for part in PARTS])
        if packed.ndim != 2 or packed.shape[1] != -(-len(axis) // 8):
            raise ValueError("the bits do not fit the axis")
        return axis, np.unpackbits(packed, axis=1, count=len(axis)).astype(bool)
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise PipelineError(
            f"{path}: arrays axis, {', '.join(PARTS)} of a simulated run are expected: {error}"
        ) from None
