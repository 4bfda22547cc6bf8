"""The data of a contest as one file, for the processes that train."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from phasewatch.bench.contest.data import Data
from phasewatch.models.labels import Labels
from phasewatch.models.series import Series

_ARRAYS = ("axis", "intensity", "ids", "index")
_TEXTS = ("unit", "digest", "source", "order_name", "baseline", "normalise")


def write(data: Data, path: Path) -> None:
    """Write `data` to `path`, an ``.npz``."""
    arrays: dict[str, Any] = {"truth_index": data.truth_index, "truth": data.truth}
    arrays |= {"label_index": data.labels.index, "label": data.labels.label}
    about: dict[str, Any] = {"name": data.name, "same": data.same, "classes": data.labels.classes}
    for role, series in (("train", data.train), ("test", data.test)):
        if role == "test" and data.same:
            continue
        arrays |= {f"{role}_{key}": getattr(series, key) for key in _ARRAYS}
        if series.order is not None:
            arrays[f"{role}_order"] = series.order
        about[role] = {key: getattr(series, key) for key in _TEXTS}
    np.savez(path, about=json.dumps(about), **arrays)


def read(path: Path) -> Data:
    """Read what `write` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays["about"]))

    def series(role: str) -> Series:
        found = {key: arrays[f"{role}_{key}"] for key in _ARRAYS}
        return Series(**found, order=arrays.get(f"{role}_order"), **about[role])

    train = series("train")
    return Data(
        name=about["name"],
        train=train,
        labels=Labels(arrays["label_index"], arrays["label"], tuple(about["classes"])),
        test=train if about["same"] else series("test"),
        truth_index=arrays["truth_index"],
        truth=arrays["truth"],
        same=about["same"],
    )
