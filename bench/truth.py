"""Reads back the truth of a simulated run."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
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
