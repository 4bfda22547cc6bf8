"""Pictures of the importance over the contour of a series.

Per class a column: above, what in each pattern speaks for the class (red) or against it (blue) over
the patterns in grey; below, the mean over the patterns that were given this class, over their mean
pattern. The strip at the left is the model's label of each pattern, the curve at the right the part
of its importance that lies on true Bragg peaks, dashed what would lie there by chance.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from phasewatch.models.card import Card
from phasewatch.models.explain import draw_weights
from phasewatch.models.explain.explanation import Explanation
from phasewatch.models.explain.panels import (
    behind,
    centres,
    class_patterns,
    figure,
    over,
    row_edges,
    save,
    scale,
    strip,
    thin,
)
from phasewatch.models.explain.peaks import fractions
from phasewatch.models.palette import AXIS, caption, colour_of
from phasewatch.models.series import Series

UNITS = {
    "gradient": "gradient of the log-odds (per unit of intensity)",
    "absolute": "|gradient| of the log-odds (per unit of intensity)",
    "input-x-gradient": "input x gradient (log-odds per point)",
    "integrated": "integrated gradient (log-odds per point)",
}


def draw_all(
    out: Path,
    told: Explanation,
    card: Card,
    series: Series,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write all pictures of `told` to the folder `out`; return their names."""
    title = f"{card.architecture} on {series.source}"
    jobs = {f"importance-{m}.png": _importance(m) for m in told.importance}
    windows = [m for m, one in told.importance.items() if one.window is not None]
    jobs |= {f"window-{m}.png": draw_weights.window(m) for m in windows if m != "absolute"}
    jobs |= draw_weights.jobs(told)
    for done, (name, draw) in enumerate(jobs.items(), 1):
        draw(out / name, told, card, series, title)
        if progress is not None:
            progress(done, len(jobs))
    return list(jobs)


def _importance(method: str) -> Callable[..., None]:
    """Return the function that draws `method`."""

    def draw(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
        one, names = told.importance[method], card.classes
        signed, n_classes = method != "absolute", len(names)
        regions = told.regions
        widths = [0.12, *[4] * n_classes, *([] if regions is None else [1])]
        made = figure(1 + sum(widths), 8.5, f"{title}: {method}")
        grid = made.subplots(2, len(widths), width_ratios=widths, height_ratios=(5, 3))
        patterns, columns = thin(told.patterns, series.axis)
        maps = [thin(values, series.axis)[0] for values in one.values]
        norm, rows = scale(maps, signed=signed), row_edges(told.index)
        means, typical = one.mean(told.label), class_patterns(told.patterns, told.label)
        strip(grid[0, 0], told.label, rows, names)
        grid[0, 0].set_ylabel("position in the series")
        grid[1, 0].set_axis_off()
        shares = told.shares(method).get("present", {})
        for k, (top, bottom) in enumerate(grid[:, 1 : 1 + n_classes].T):
            paint = over(top, patterns, maps[k], columns, rows, norm)
            top.sharey(grid[0, 0])
            top.tick_params(labelleft=False)
            top.set_title(f"for {names[k]}", color=colour_of(names[k], k), fontsize=11)
            bottom.sharex(top)
            bottom.set_xlabel(AXIS[series.unit])
            if k not in typical:
                bottom.text(0.5, 0.5, "no pattern", ha="center", transform=bottom.transAxes)
                continue
            behind(bottom, series.axis, typical[k])
            _signed_curve(bottom, centres(columns), thin(means[k : k + 1], series.axis)[0][0])
            n = int((told.label == k).sum())
            mean = "the only pattern" if n == 1 else f"mean over the {n} patterns"
            note = f"{mean} labelled {names[k]}"
            share = shares.get(k)
            if regions is not None and share is not None and share.fraction is not None:
                note += (
                    f"\n{100 * share.fraction:.0f} % on Bragg peaks, by chance "
                    f"{100 * share.chance:.1f} %: {share.ratio:.1f} times"
                )
                present = regions[told.label == k].any(axis=0)
                bottom.fill_between(
                    series.axis,
                    0,
                    0.03,
                    where=present,
                    transform=bottom.get_xaxis_transform(),
                    color="k",
                    lw=0,
                )
            bottom.set_title(note, fontsize=9)
        bar = made.colorbar(paint, ax=grid[0, 1:], location="top", shrink=0.5, aspect=40)
        bar.set_label(UNITS[method])
        grid[1, 1].set_ylabel("mean importance")
        if regions is not None:
            own = one.values[told.label, np.arange(len(told.label))]
            side = grid[0, -1]
            side.sharey(grid[0, 0])
            side.plot(fractions(own, regions), told.index, "k", lw=1)
            side.plot(regions.mean(axis=1), told.index, "--", color="0.5", lw=1)
            side.set_xlim(0)
            side.set_title("on peaks", fontsize=9)
            side.tick_params(labelleft=False)
            grid[1, -1].set_axis_off()
        caption(made, _caption(method, told))
        save(made, path)

    return draw


def _caption(method: str, told: Explanation) -> str:
    """Say what colours and lines are, and how far the importance is not all."""
    signs = "the darker, the more it matters" if method == "absolute" else draw_weights.SIGNS
    lines = [f"{signs}; grey: the patterns (above) and their mean (below)"]
    if told.regions is not None:
        lines.append(
            "black marks: where true Bragg peaks lie; on peaks: part of a pattern's importance "
            "that lies there, dashed: by chance"
        )
    if incomplete := told.importance[method].incomplete:
        lines.append(incomplete)
    return "\n".join(lines)


def _signed_curve(axes: Axes, axis: NDArray[Any], values: NDArray[Any]) -> None:
    axes.fill_between(axis, values, 0, where=values > 0, color="#b2182b", lw=0.6)
    axes.fill_between(axis, values, 0, where=values < 0, color="#2166ac", lw=0.6)
    axes.axhline(0, color="0.5", lw=0.5)
    axes.margins(x=0)
