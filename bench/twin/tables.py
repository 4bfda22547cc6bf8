"""The small files of a simulated run: geometry, mask, truth, labels, configuration."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.detector import N_BINS, PIXEL_M, POLARIZATION, SATURATION
from phasewatch.bench.twin.experiment import CLASSES
from phasewatch.bench.twin.run import Run

# Of the frames before (after) the transition the last (first) tenth is left to nobody's judgement.
CLEAR_SHARE = 0.9


def poni_text(run: Run) -> str:
    """Return the geometry of `run` as a PONI file of version 2."""
    poni = run.detector.poni
    config = json.dumps({"pixel1": PIXEL_M, "pixel2": PIXEL_M, "max_shape": run.layout.shape})
    return "\n".join(
        (
            f"# Simulated experiment {run.experiment.name}, seed {run.conditions.seed}",
            "poni_version: 2",
            "Detector: Detector",
            f"Detector_config: {config}",
            f"Distance: {poni['dist']!r}",
            f"Poni1: {poni['poni1']!r}",
            f"Poni2: {poni['poni2']!r}",
            f"Rot1: {poni['rot1']!r}",
            f"Rot2: {poni['rot2']!r}",
            "Rot3: 0.0",
            f"Wavelength: {run.experiment.wavelength_m!r}",
            "",
        )
    )


def pick_labels(label: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the frames (<= k,) that a scientist would label, evenly spaced within each class.

    The classes that occur share `k`; `before` and `after` are picked where the frame is clear of
    the transition.
    """
    present = [c for c in range(len(CLASSES)) if np.any(label == c)]
    picked: list[int] = []
    for position, c in enumerate(present):
        share = k // len(present) + (position < k % len(present))
        frames = np.flatnonzero(label == c)
        clear = max(1, int(np.ceil(CLEAR_SHARE * len(frames))))
        if c == 0 and len(present) > 1:
            frames = frames[:clear]
        elif c == len(CLASSES) - 1 and len(present) > 1:
            frames = frames[-clear:]
        at = (np.arange(share) + 0.5) / max(share, 1) * len(frames)
        picked += frames[np.unique(at.astype(int))].tolist()
    return np.asarray(sorted(set(picked)), dtype=np.int64)


def write_truth(path: Path, run: Run) -> None:
    """Write index, pressure, fraction and class of every frame."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("index", "pressure_gpa", "fraction", "label"))
        for i, (p, x, c) in enumerate(zip(run.pressure_gpa, run.fraction, run.label, strict=True)):
            table.writerow((i, f"{p:.4f}", f"{x:.6f}", CLASSES[c]))


def write_labels(path: Path, run: Run, *, k: int) -> None:
    """Write the classes of the `k` frames that `pick_labels` picks."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("index", "label"))
        table.writerows((i, CLASSES[run.label[i]]) for i in pick_labels(run.label, k).tolist())


def config_text(run: Run, *, source: dict[str, Any], frames: bool) -> str:
    """Return a configuration for `run`: its `source` table, and calibration where it has frames."""
    lo, hi = run.experiment.two_theta_deg
    lines = ["[source]", *(f"{key} = {json.dumps(value)}" for key, value in source.items()), ""]
    if frames:
        lines += [
            "[calibration]",
            'poni = "calibration.poni"',
            'mask = "mask.npy"',
            f"saturation = {SATURATION}",
            "",
        ]
    lines.append("[reduce]")
    if frames:
        lines += [
            f"n_bins = {N_BINS}",
            'unit = "2th_deg"',
            'split = "no"',
            f"range = [{lo}, {hi}]   # the same for all runs of {run.experiment.name}",
            f"polarization = {POLARIZATION}",
        ]
    lines += [
        'baseline = {method = "asls", lam = 1e5, p = 0.002, n_iter = 10}',
        'normalise = "minmax"',
        "",
        "# [classifier]   # trained on a result.nxs, whose patterns were made as above",
        '# model = "../models/fe-cnn"',
        "",
        "[[sink]]",
        'type = "nexus"',
        'path = "result.nxs"',
        "",
    ]
    return "\n".join(lines)
