"""The layout of the result file: HDF5 in NeXus layout, made so that it can grow under SWMR.

::

    /entry                 NXentry, default "patterns"
        patterns           NXdata: intensity [n, n_bins], axis [n_bins]; where the run has a
                           variance, its root: intensity_errors [n, n_bins]
        classification     NXdata: probability [n, C], label, novelty, posterior, phase [n];
                           attribute classes, a JSON list
        track              confidence; zones, events: JSON lists; event_log: one JSON line each
        frame              seq, id, t_acq [n] (ns UTC, -1 where the detector gave none)
        loss               seq, id, stage, error of each failed item; table: JSON
        provenance         start, stop, configuration, versions: JSON

The groups ``classification`` and ``track`` are there when the run classifies. While the file is
written only datasets grow: HDF5 lets a SWMR writer create nothing. ``/entry/frame/seq`` grows last,
so its length is the number of complete items. The JSON of what is known only at the end (``zones``,
``events``, ``table``, ``stop``) is empty until then; an event is in ``event_log`` as it happens.
"""

import json
import platform
from importlib.metadata import version
from typing import Any

import h5py
import numpy as np

from phasewatch.pipeline.documents import ItemSpec, RunStart

CLASSIFICATION = ("probability", "label", "novelty", "posterior", "phase")
ERRORS = "intensity_errors"  # the name by which NXdata finds the standard deviation of its signal
NOT_WRITTEN = ("frame",)  # counts stay where they came from
CHUNK_BYTES = 1 << 18  # a chunk of 16 patterns of 4023 bins; one row a chunk would be 16 kB
UNITS = {"2th_deg": "deg", "q_nm^-1": "nm^-1", "q_A^-1": "A^-1"}
LONG_NAMES = {
    "2th_deg": "two theta (deg)",
    "q_nm^-1": "q (nm^-1)",
    "q_A^-1": "q (A^-1)",
}
STAGE = h5py.string_dtype("utf-8", 32)
LINE = h5py.string_dtype("utf-8", 512)  # fixed: HDF5 does not promise variable length under SWMR
PACKAGES = ("phasewatch", "numpy", "h5py", "pyFAI")


def create(file: h5py.File, run: RunStart) -> dict[str, h5py.Dataset]:
    """Create all groups and datasets; return those that grow by item, ``seq`` last."""
    file.attrs["NX_class"], file.attrs["default"] = "NXroot", "entry"
    file.attrs["creator"] = "phasewatch"
    entry = _group(file, "entry", "NXentry", default="patterns")
    entry["title"] = run.run_id
    columns: dict[str, h5py.Dataset] = {}

    patterns = _group(entry, "patterns", "NXdata", signal="intensity", axes=[".", "axis"])
    axis = patterns.create_dataset("axis", data=run.constants["axis"], dtype="f8")
    if run.unit is not None:
        axis.attrs["unit"] = run.unit
        axis.attrs["units"] = UNITS[run.unit]
        axis.attrs["long_name"] = LONG_NAMES[run.unit]
    classified = [name for name in CLASSIFICATION if name in run.items]
    for name, spec in run.items.items():
        if name not in (*classified, *NOT_WRITTEN):
            written = ERRORS if name == "variance" else name
            columns[name] = _growing(patterns, written, spec)
    if classified:
        group = _group(entry, "classification", "NXdata", signal=classified[0])
        group.attrs["classes"] = json.dumps(run.classes)
        group.attrs["axes"] = ["."] * (1 + len(run.items[classified[0]].shape))
        columns |= {name: _growing(group, name, run.items[name]) for name in classified}
        track = _group(entry, "track", "NXcollection")
        track["confidence"] = np.nan
        _growing(track, "event_log", ItemSpec(shape=(), dtype=""), LINE)
        _texts(track, zones="[]", events="[]")

    number = ItemSpec.of((), np.int64)
    loss = _group(entry, "loss", "NXcollection")
    _growing(loss, "seq", number)
    _growing(loss, "id", number)
    _growing(loss, "stage", number, STAGE)
    _growing(loss, "error", number, LINE)
    _texts(loss, table="")
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    _texts(
        _group(entry, "provenance", "NXcollection"),
        start=run.model_dump_json(),
        stop="",
        configuration=json.dumps(run.settings.get("configuration", {})),
        versions=json.dumps(versions),
    )
    frame = _group(entry, "frame", "NXcollection")
    columns["t_acq"] = _growing(frame, "t_acq", number)
    columns["t_acq"].attrs["units"] = "ns"
    columns["t_acq"].attrs["description"] = "since 1970-01-01 UTC; -1: the detector gave no time"
    columns["id"] = _growing(frame, "id", number)
    columns["seq"] = _growing(frame, "seq", number)
    return columns


def _group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    for key, value in attributes.items():
        group.attrs[key] = value
    return group


def _growing(
    group: h5py.Group, name: str, spec: ItemSpec, dtype: np.dtype[Any] | None = None
) -> h5py.Dataset:
    kind = dtype or np.dtype(spec.dtype)
    row_bytes = max(1, kind.itemsize * int(np.prod(spec.shape, dtype=np.int64)))
    rows = max(1, min(1024, CHUNK_BYTES // row_bytes))
    return group.create_dataset(
        name,
        shape=(0, *spec.shape),
        maxshape=(None, *spec.shape),
        chunks=(rows, *(max(1, s) for s in spec.shape)),
        dtype=kind,
    )


def _texts(group: h5py.Group, **texts: str) -> None:
    for name, text in texts.items():
        group.create_dataset(name, data=text, dtype=h5py.string_dtype())
