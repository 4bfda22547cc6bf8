"""Reads a result file, finished or still being written."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.documents import Event, Loss, RunStart, RunStop, Zone
from phasewatch.pipeline.errors import PipelineError, one_line


@dataclass(frozen=True)
class Result:
    """What a result file holds; ``n`` complete items.

    Attributes
    ----------
    start, stop
        The run; `stop` is None while it is going on, or when it ended without.
    axis
        (n_bins,) float64 in ``start.unit``.
    arrays
        Each (n, ...): ``intensity``, and where the run classifies ``probability``, ``label``, ...
    seq, ids, t_acq
        (n,) int64; `t_acq` in ns UTC, -1 where the detector gave none.
    confidence
        NaN until it is known.
    """

    start: RunStart
    stop: RunStop | None
    axis: NDArray[np.float64]
    arrays: dict[str, NDArray[Any]]
    seq: NDArray[np.int64]
    ids: NDArray[np.int64]
    t_acq: NDArray[np.int64]
    failures: tuple[Failure, ...]
    events: tuple[Event, ...]
    zones: tuple[Zone, ...]
    loss: Loss | None
    confidence: float
    versions: dict[str, str]


def read_result(path: str | Path) -> Result:
    """Return what `path` holds now.

    Raises
    ------
    PipelineError
        It is not a result file.
    """
    try:
        with h5py.File(path, "r", libver="latest", swmr=True) as file:
            return _read(file["entry"])
    except (OSError, KeyError, ValueError) as error:
        raise PipelineError(
            f"file {path} is not a readable phasewatch result ({one_line(error)})"
        ) from None


def _read(entry: h5py.Group) -> Result:
    frame, loss, provenance = entry["frame"], entry["loss"], entry["provenance"]
    n = len(frame["seq"])
    arrays = {k: v[:n] for k, v in entry["patterns"].items() if k != "axis"}
    arrays |= {k: v[:n] for k, v in entry.get("classification", {}).items()}
    failed = len(loss["seq"])
    columns = [loss["seq"][:failed], loss["id"][:failed]]
    texts = [loss[name].asstr()[:failed] for name in ("stage", "error")]
    stop = _text(provenance["stop"])
    table = _text(loss["table"])
    track = entry.get("track")
    lines = track["event_log"].asstr()[:] if track else ()
    return Result(
        start=RunStart.model_validate_json(_text(provenance["start"])),
        stop=RunStop.model_validate_json(stop) if stop else None,
        axis=entry["patterns/axis"][:],
        arrays=arrays,
        seq=frame["seq"][:n],
        ids=frame["id"][:n],
        t_acq=frame["t_acq"][:n],
        failures=tuple(
            Failure(int(s), int(i), stage, error)
            for s, i, stage, error in zip(*columns, *texts, strict=True)
        ),
        events=tuple(Event.model_validate_json(line) for line in lines),
        zones=tuple(
            Zone.model_validate(z) for z in (json.loads(_text(track["zones"])) if track else ())
        ),
        loss=Loss.model_validate_json(table) if table else None,
        confidence=float(track["confidence"][()]) if track else float("nan"),
        versions=json.loads(_text(provenance["versions"])),
    )


def _text(dataset: h5py.Dataset) -> str:
    text: str = dataset.asstr()[()]
    return text
