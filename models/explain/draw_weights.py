"""Pictures of weights, components, bins and attention."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from phasewatch.models.card import Card
from phasewatch.models.explain.explanation import Explanation
from phasewatch.models.explain.panels import (
    SIGNED,
    behind,
    centres,
    class_patterns,
    figure,
    row_edges,
    save,
    scale,
    strip,
    thin,
)
from phasewatch.models.palette import AXIS, caption, colour_of
from phasewatch.models.series import Series

SIGNS = "red: speaks for the class; blue: against it"
SHOWN = 16  # components: the rest of a noisy series is noise
Draw = Callable[[Path, Explanation, Card, Series, str], None]


def jobs(told: Explanation) -> dict[str, Draw]:
    """Return what there is to draw: file name to the function that draws it."""
    found: dict[str, Draw] = {}
    if told.weights is not None:
        found["weights.png"] = _weights
    if told.components is not None:
        found["components.png"] = _components
    if told.bins is not None:
        found["bins.png"] = _bins
    if told.attention:
        found["attention.png"] = _attention
    return found


def _weights(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
    """First layer as a map; below it the composed weights, a panel per class."""
    weights = told.weights
    assert weights is not None
    composed = [] if weights.composed is None else list(enumerate(weights.composed))
    made = figure(9, 4.5 + 1.6 * len(composed), f"{title}: weights, without any pattern")
    panels = made.subplots(
        1 + len(composed), 1, sharex=True, height_ratios=[3, *[1] * len(composed)]
    )
    panels = np.atleast_1d(panels)
    values, columns = thin(weights.rows, series.axis)
    norm = scale([values], signed=True)
    rows = np.arange(len(values) + 1)
    shown = panels[0].pcolormesh(columns, rows, values, norm=norm, cmap=SIGNED, rasterized=True)
    made.colorbar(shown, ax=panels[0], label="weight of the first layer")
    order = "" if weights.push is None else f", first those that push to {card.classes[1]}"
    panels[0].set_ylabel("hidden unit" + order)
    panels[0].invert_yaxis()
    typical = class_patterns(told.patterns, told.label)
    for (k, line), panel in zip(composed, panels[1:], strict=True):
        smooth, edges = thin(line[None], series.axis)
        if k in typical:
            behind(panel, series.axis, typical[k])
        panel.plot(centres(edges), smooth[0], color=colour_of(card.classes[k], k), lw=0.8)
        panel.axhline(0, color="0.5", lw=0.5)
        panel.set_ylabel(f"composed,\nfor {card.classes[k]}")
        panel.set_yticks([0])
    panels[-1].set_xlabel(AXIS[series.unit])
    if composed:
        caption(made, "composed: product of all layers, rectifiers left out; grey: mean pattern")
    save(made, path)


def _components(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
    """Contributions over the mean pattern, loadings of the first components below."""
    found = told.components
    assert found is not None
    made = figure(9, 7, f"{title}: principal components")
    top, bottom = made.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    behind(top, series.axis, told.patterns.mean(axis=0))
    top.plot(series.axis, 100 * found.contributions, "k", lw=0.8)
    top.set_ylabel("contribution (% per point)")
    top.set_ylim(bottom=0)
    values, columns = thin(found.loadings[:SHOWN], series.axis)
    rows = np.arange(len(values) + 1) + 0.5
    norm = scale([values], signed=True)
    shown = bottom.pcolormesh(columns, rows, values, norm=norm, cmap=SIGNED, rasterized=True)
    made.colorbar(shown, ax=bottom, label="loading (intensity)", location="bottom", shrink=0.5)
    bottom.invert_yaxis()
    bottom.set_ylabel(f"component (of {len(found.loadings)})")
    bottom.set_xlabel(AXIS[series.unit])
    caption(made, "grey: mean pattern of the series")
    save(made, path)


def _bins(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
    """Weight of each bin over the mean patterns of the classes."""
    found = told.bins
    assert found is not None
    made = figure(9, 4.5, f"{title}: weight of each bin")
    panel = made.subplots()
    at = np.append(series.axis, 2 * series.axis[-1] - series.axis[-2])[found.first]
    panel.bar(at[:-1], found.weight, np.diff(at), align="edge", color="0.85", edgecolor="w")
    curves = panel.twinx()
    for k, pattern in class_patterns(told.patterns, told.label).items():
        curves.plot(
            series.axis,
            pattern,
            color=colour_of(card.classes[k], k),
            lw=0.8,
            label=f"mean pattern of {card.classes[k]}",
        )
    curves.set_yticks([])
    curves.legend(fontsize=9)
    panel.margins(x=0)
    panel.set_ylabel("weight of the bin's vote")
    panel.set_xlabel(AXIS[series.unit])
    save(made, path)


def _attention(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
    """Each map of each class in a panel; temporal attention along the series."""
    names = card.classes
    square = {n: v for n, v in told.attention.items() if v.ndim == 3}
    along = {n: v for n, v in told.attention.items() if v.ndim == 2}
    n_rows, n_columns = len(square) + bool(along), max(len(names) if square else 1, len(along))
    made = figure(1 + 3.6 * n_columns, 0.8 + 3.4 * n_rows, f"{title}: attention, mean over heads")
    grid = made.subplots(n_rows, n_columns, squeeze=False)
    for panel in grid.flat:
        panel.set_axis_off()
    for row, (name, maps) in zip(grid, square.items(), strict=False):
        top = float(np.nanpercentile(maps, 99.8))
        for k, panel in enumerate(row[: len(names)]):
            if np.isnan(maps[k]).all():
                continue
            panel.set_axis_on()
            shown = panel.imshow(maps[k], vmin=0, vmax=top, cmap="viridis")
            panel.set_title(f"{name}, {names[k]}", fontsize=10)
            panel.set_xlabel("looked at")
        row[0].set_ylabel({"channel": "channel", "spatial": "position of the embedding"}[name])
        made.colorbar(shown, ax=row, shrink=0.8, label="attention")
    for panel, (name, values) in zip(grid[-1], along.items(), strict=False):
        panel.set_axis_on()
        # A window of t patterns gives each 1/t if it sees no difference.
        relative = values * np.isfinite(values).sum(axis=1, keepdims=True)
        norm = Normalize(0, float(np.nanpercentile(relative, 99)))
        panel.set_ylabel("position in the series")
        _ages(
            panel, relative, told, f"{name}, of the last pattern\n(1: all alike)", "viridis", norm
        )
    save(made, path)


def window(method: str) -> Draw:
    """Return the function that draws what the patterns of a window contribute by `method`."""

    def draw(path: Path, told: Explanation, card: Card, series: Series, title: str) -> None:
        values = told.importance[method].window
        assert values is not None
        n_classes = len(values)
        made = figure(2 + 3.6 * n_classes, 5.5, f"{title}: {method}, summed over each pattern")
        grid = made.subplots(
            1, 1 + n_classes, sharey=True, width_ratios=[0.12, *[4] * n_classes], squeeze=False
        )[0]
        strip(grid[0], told.label, row_edges(told.index), card.classes)
        grid[0].set_ylabel("position in the series")
        norm = scale(values, signed=method != "gradient")
        for k, panel in enumerate(grid[1:]):
            cmap = SIGNED if norm.vmin else "Reds"
            _ages(panel, values[k], told, f"for {card.classes[k]}", cmap, norm)
        caption(made, SIGNS if norm.vmin else "the darker, the more it matters")
        save(made, path)

    return draw


def _ages(
    panel: Axes, values: np.ndarray, told: Explanation, title: str, cmap: str, norm: Any
) -> None:
    """Draw values (n, context + 1) over the age of the patterns in the window."""
    ages = np.arange(values.shape[1] + 1) - values.shape[1] + 0.5
    shown = panel.pcolormesh(ages, row_edges(told.index), values, cmap=cmap, norm=norm)
    panel.figure.colorbar(shown, ax=panel, shrink=0.8)
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("patterns relative to the one classified")
