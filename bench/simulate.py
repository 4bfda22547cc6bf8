"""Writes a simulated run as a folder: frames or patterns, calibration, truth, labels, picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from phasewatch.bench.twin import lambda_files, tables
from phasewatch.bench.twin.peaks import write_peaks
from phasewatch.bench.twin.run import Run
from phasewatch.pipeline.errors import PipelineError

Kind = Literal["frames", "patterns"]
Progress = Callable[[int], None]

MODULES = "modules"


def write_run(
    run: Run,
    out: Path,
    *,
    kind: Kind = "frames",
    with_data: bool = True,
    labels: int = 12,
    progress: Progress = lambda done: None,
) -> None:
    """Write `run` to the folder `out`, which is made.

    Parameters
    ----------
    kind
        Detector frames, or the patterns that integrating them gives.
    with_data
        False leaves the frames (patterns) out; the configuration then simulates them as it runs.
    labels
        Number of frames in ``labels.csv``.
    progress
        Called with the number of frames (patterns) written, after each.

    Raises
    ------
    PipelineError
        The folder holds something.
    """
    from phasewatch.bench.picture import draw_truth

    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise PipelineError(f"folder {out}: must be new or empty, nothing is overwritten")
    frames = kind == "frames"
    tables.write_truth(out / "truth.csv", run)
    tables.write_labels(out / "labels.csv", run, k=labels)
    write_peaks(out / "peaks.npz", run)
    if frames:
        (out / "calibration.poni").write_text(tables.poni_text(run), encoding="utf-8")
        np.save(out / "mask.npy", run.mask)
    if not with_data:
        source = _simulated(run, kind)
    elif not frames:
        source = _write_patterns(run, out, progress)
    elif run.layout.name == "p022":
        source = _write_modules(run, out, progress)
    else:
        source = _write_frames(run, out, progress)
    config = tables.config_text(run, source=source, frames=frames)
    (out / "run.toml").write_text(config, encoding="utf-8")
    draw_truth(run, out / "run.png")


def _simulated(run: Run, kind: Kind) -> dict[str, Any]:
    return {
        "uri": f"simulate:{run.experiment.name}",
        "seed": run.conditions.seed,
        "frames": run.conditions.frames,
        "layout": run.layout.name,
        "kind": kind,
    }


def _write_frames(run: Run, out: Path, progress: Progress) -> dict[str, Any]:
    import hdf5plugin

    n, shape = run.conditions.frames, run.layout.shape
    with h5py.File(out / "frames.h5", "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        entry["title"] = f"simulated: {run.experiment.title}, seed {run.conditions.seed}"
        group = entry.create_group("data")
        group.attrs.update(NX_class="NXdata", signal="data", axes=["frame_number", ".", "."])
        data = group.create_dataset(
            "data",
            shape=(n, *shape),
            dtype=run.layout.dtype,
            chunks=(1, *shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        data.attrs.update(long_name="counts", interpretation="image")
        group["frame_number"] = np.arange(1, n + 1)
        for i in range(n):
            data[i] = run.frame(i)
            progress(i + 1)
    return {"uri": "hdf5:frames.h5#/entry/data/data"}


def _write_modules(run: Run, out: Path, progress: Progress) -> dict[str, Any]:
    folder = out / MODULES
    folder.mkdir(exist_ok=True)
    size = lambda_files.FRAMES_PER_PART
    for part in range(-(-run.conditions.frames // size)):
        frames = []
        for i in range(part * size, min((part + 1) * size, run.conditions.frames)):
            frames.append(run.frame(i))
            progress(i + 1)
        lambda_files.write_part(folder, run, part=part, frames=frames)
    return {"uri": f"lambda-nexus:{MODULES}"}


def _write_patterns(run: Run, out: Path, progress: Progress) -> dict[str, Any]:
    patterns = []
    for i in range(run.conditions.frames):
        patterns.append(run.pattern(i))
        progress(i + 1)
    np.savez_compressed(
        out / "series.npz",
        x=run.axis,
        intensity=np.stack(patterns),
        order=run.pressure_gpa,
        x_name="2th_deg",
        order_name="pressure (GPa)",
        labels_derived=run.label,
        labels_derived_note="true classes: 0 before (< 1 % in the high-pressure phase), 1 during, "
        "2 after (> 99 %)",
    )
    return {"uri": "series:series.npz"}
