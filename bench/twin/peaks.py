"""Where the Bragg peaks of a run truly are.

A point of the axis lies on a peak where it is within the full width at half maximum of a line
that has at least 1 % of the height of the pattern's strongest line. Every phase that is present
counts: that of before, that of after, and what else is in the beam.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.pattern import Lines
from phasewatch.bench.twin.run import Run

Bools = NDArray[np.bool_]

PARTS = ("low", "high", "other")
FAINTEST = 0.01


def on_lines(axis: Floats, shape: Lines) -> Bools:
    """Return where `axis` (N,), rising and even, is within half a width (FWHM) of a line, (N,)."""
    edges = np.zeros(len(axis) + 1, dtype=np.int64)
    first = np.searchsorted(axis, shape.two_theta_deg - shape.fwhm_deg / 2)
    last = np.searchsorted(axis, shape.two_theta_deg + shape.fwhm_deg / 2)
    np.add.at(edges, first, 1)
    np.add.at(edges, last, -1)
    return np.cumsum(edges[:-1]) > 0


def peaks(run: Run, i: int) -> dict[str, Bools]:
    """Return where the peaks of frame `i` are on the axis, (N,) for each of `PARTS`."""
    present = [(part, shape) for part, shape in run.lines(i) if len(shape.intensity)]
    heights = [shape.intensity / shape.fwhm_deg for _, shape in present]
    faintest = FAINTEST * max(float(height.max()) for height in heights)
    found = {part: np.zeros(len(run.axis), dtype=bool) for part in PARTS}
    for (part, shape), height in zip(present, heights, strict=True):
        keep = height >= faintest
        bright = Lines(shape.two_theta_deg[keep], shape.fwhm_deg[keep], shape.intensity[keep])
        found[part] |= on_lines(run.axis, bright)
    return found


def write_peaks(path: Path, run: Run) -> None:
    """Write ``peaks.npz``: `axis` (N,) in deg, and per part the bits (n, ceil(N / 8)), packed."""
    frames = [peaks(run, i) for i in range(run.conditions.frames)]
    low, high, other = (np.packbits([f[part] for f in frames], axis=1) for part in PARTS)
    np.savez_compressed(path, axis=run.axis, low=low, high=high, other=other)
