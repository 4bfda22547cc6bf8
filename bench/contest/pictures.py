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
from phasewatch.bench.panels import COLOURS, INK, waterfall

Record = dict[str, Any]


def draw_boundaries(
    path: Path, data: Data, found: Sequence[Row], records: Sequence[Record]
) -> None:
    """Write a PNG: the series that is judged, and beside it the boundaries by each contender.

    A dot is the boundary of one seed, dashed lines are the true ones; bars below say how much of
    the series is unambiguous (classification confidence, mean over seeds).
    """
    shown = [row for row in found if row.seeds]
    figure = Figure(figsize=(6.5 + 0.34 * len(shown), 7.0), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        2, 2, width_ratios=(4.5, 0.34 * len(shown) + 1.2), height_ratios=(5, 1), squeeze=False
    )
    series, frames, unused, share = axes.ravel()
    unused.set_axis_off()
    unit = data.test.unit
    waterfall(series, data.test.axis, np.arange(len(data.test)), data.test.intensity, unit=unit)
    frames.sharey(series)
    true = boundaries(data.truth, data.truth_index, len(data.test), len(data.labels.classes))
    for ax in (series, frames):
        for b in true:
            colour = "white" if ax is series else INK
            ax.axhline(b - 0.5, color=colour, lw=1, ls="--")
    for i, row in enumerate(shown):
        seeds = [r for r in records if (r["name"], r["recipe"]) == (row.name, row.recipe)]
        for record in seeds:
            if "error" not in record:
                where = np.array(record["boundary"]) - 0.5
                frames.plot([i] * len(where), where, "o", ms=5, alpha=0.6, color=_colour(row))
        share.bar(i, 100 * row.values["confidence"][0][0], color=_colour(row))
    frames.set_title(f"{data.name}: boundary, one dot a seed", fontsize=10, color=INK)
    frames.set_ylabel("frame")
    frames.set_xlim(-0.7, len(shown) - 0.3)
    frames.set_xticks(range(len(shown)), [""] * len(shown))
    frames.grid(axis="x", color="0.92")
    share.set_xlim(-0.7, len(shown) - 0.3)
    share.set_xticks(range(len(shown)), [_name(row) for row in shown], rotation=90, fontsize=8)
    share.set_ylabel("confidence (%)")
    share.set_ylim(0, 105)
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
    arrays = {}
    for (name, (x, confidence)), colour in zip(lines.items(), COLOURS, strict=False):
        percent = np.ma.masked_invalid(100 * confidence)
        mean = np.ma.filled(percent.mean(axis=0).astype(float), np.nan)
        spread = np.ma.filled(percent.std(axis=0).astype(float), np.nan)
        ax.plot(x, mean, "o-", ms=3.5, lw=1, color=colour, label=name)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        arrays |= {f"{name}_x": x, f"{name}_confidence": confidence}
    if whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(label)
    ax.set_ylabel("classification confidence (%)")
    ax.set_title(title, fontsize=10, color=INK)
    if len(lines) > 1:
        ax.legend(frameon=False)
    figure.savefig(path)
    np.savez(path.with_suffix(".npz"), **arrays)
