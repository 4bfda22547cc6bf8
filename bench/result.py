"""Reads back what a picture needs: a result file, and the truth of a simulated run."""

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.pipeline.errors import PipelineError


@dataclass(frozen=True, eq=False)
class Result:
    """What a result file says; rows are items, `seq` (n,) their positions in the stream."""

    seq: NDArray[np.int64]
    axis: Floats
    unit: str
    intensity: Floats
    classes: tuple[str, ...] = ()
    probability: Floats | None = None
    posterior: Floats | None = None
    zones: list[dict[str, int]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    confidence: float | None = None


def read_result(path: Path) -> Result:
    """Read the result file `path`.

    Raises
    ------
    PipelineError
        It is missing, is no result file, or holds no patterns.
    """
    try:
        with h5py.File(path, "r") as file:
            entry = file["entry"]
            result = Result(
                seq=entry["frame/seq"][()],
                axis=entry["patterns/axis"][()],
                unit=str(entry["patterns/axis"].attrs.get("unit", "2th_deg")),
                intensity=entry["patterns/intensity"][()],
            )
            if "classification" in entry:
                group, track = entry["classification"], entry["track"]
                result = replace(
                    result,
                    classes=tuple(json.loads(group.attrs["classes"])),
                    probability=group["probability"][()],
                    posterior=group["posterior"][()] if "posterior" in group else None,
                    zones=_json(track["zones"]),
                    events=_json(track["events"]),
                    confidence=float(track["confidence"][()]),
                )
    except (OSError, KeyError) as error:
        raise PipelineError(f"{path}: not a result file: {error}") from None
    if len(result.seq) == 0:
        raise PipelineError(f"{path}: holds no patterns: there is nothing to draw")
    return result


def _json(dataset: h5py.Dataset) -> list[dict[str, Any]]:
    text = dataset.asstr()[()]
    loaded: list[dict[str, Any]] = json.loads(text) if text else []
    return loaded


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
