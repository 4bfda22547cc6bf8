"""Pictures of a comparison: where each contender puts the boundary, and the thesis's sweeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from phasewatch.bench.contest.data import Data
from phasewatch.bench.contest.jobs import NO_RECIPE, OUTSIDE
from phasewatch.bench.contest.metrics import boundaries
from phasewatch.bench.contest.table import Row
from phasewatch.bench.panels import INK, waterfall
from phasewatch.models.palette import COLOURS

Record = dict[str, Any]


def draw_boundaries(
    path: Path, data: Data, found: Sequence[Row], records: Sequence[Record]
) -> None:
    """Write a PNG: the series that is judged, and beside it the boundaries by each contender.

    A dot is the boundary by one seed, dashed lines are the true ones. Above stands the
    classification confidence, the mean over seeds.
    """
    shown = [row for row in found if row.values["confidence"] is not None]
    width = 0.32 * len(shown) + 1.0
    figure = Figure(figsize=(5.5 + width, 6.6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4.5, width))
    test, position = data.test, np.arange(len(data.test))
    waterfall(left, test.axis, position, test.intensity.astype(float), unit=test.unit)
    for b in boundaries(data.truth, data.truth_index, len(test), len(data.labels.classes)):
        left.axhline(b - 0.5, color="white", lw=1, ls="--")
        right.axhline(b - 0.5, color=INK, lw=1, ls="--")
    for i, row in enumerate(shown):
        for record in records:
            if (record["name"], record["recipe"]) == (row.name, row.recipe) and (
                where := record.get("boundary")
            ):
                x = [i] * len(where)
                right.plot(x, np.array(where) - 0.5, "o", ms=5, alpha=0.6, color=_colour(row))
    places = range(len(shown))
    right.set_xlim(-0.7, len(shown) - 0.3)
    right.set_xticks(places, [_name(row) for row in shown], rotation=90, fontsize=8)
    right.grid(axis="x", color="0.92")
    above = right.secondary_xaxis("top")
    sure = [100 * value[0][0] for row in shown if (value := row.values["confidence"])]
    above.set_xticks(places, [f"{c:.1f}" for c in sure], rotation=90, fontsize=8)
    above.set_xlabel("classification confidence (%)", fontsize=8)
    figure.suptitle(f"{data.name}: boundary by each contender, one dot a seed", fontsize=10)
    figure.savefig(path)


def _colour(row: Row) -> str:
    if row.name in OUTSIDE:
        return COLOURS[1]
    return COLOURS[0] if row.recipe == "phasewatch" else COLOURS[2]


def _name(row: Row) -> str:
    return row.name if row.recipe == NO_RECIPE else f"{row.name} ({row.recipe})"


def draw_sweep(
    path: Path,
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    *,
    title: str,
    label: str,
    whole: bool,
) -> None:
    """Write a PNG, and an ``.npz`` beside it: confidence against what was swept.

    Parameters
    ----------
    lines
        By their name, x (m,) and confidence (seeds, m), NaN where a training failed; the line is
        the mean, the band one standard deviation.
    label
        Of x.
    whole
        Whether x are whole numbers.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    arrays: dict[str, Any] = {}
    for (name, (x, confidence)), colour in zip(lines.items(), COLOURS, strict=False):
        percent = np.ma.masked_invalid(100 * confidence)
        mean = np.ma.filled(percent.mean(axis=0).astype(float), np.nan)
        spread = np.ma.filled(percent.std(axis=0).astype(float), np.nan)
        ax.plot(x, mean, "o-", ms=3.5, lw=1, color=colour, label=name)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        arrays |= {f"{name}_x": x, f"{name}_confidence": confidence}
    if whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lowest = min(100 * np.nanmin(c, initial=0.9) for _, c in lines.values())
    ax.set_ylim(lowest - 2, 101)
    ax.set_xlabel(label)
    ax.set_ylabel("classification confidence (%)")
    ax.set_title(title, fontsize=10, color=INK)
    if len(lines) > 1:
        ax.legend(frameon=False)
    figure.savefig(path)
    np.savez(path.with_suffix(".npz"), **arrays)
