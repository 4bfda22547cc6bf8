"""One picture of a model's view of a series."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phasewatch.models.evaluate import Evaluation
from phasewatch.models.labels import Labels
from phasewatch.models.palette import AXIS, caption, colour_of
from phasewatch.models.series import Series


def draw(
    path: str | Path,
    series: Series,
    found: Evaluation,
    classes: tuple[str, ...],
    *,
    labels: Labels | None = None,
    title: str = "",
) -> None:
    """Write a PNG: the series as a map, and below it probabilities, labels and novelty along it.

    Ambiguity zones are grey; dots are the model's labels, circles the given ones.
    """
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    heat, probability, novelty = figure.subplots(
        3, 1, sharex=True, height_ratios=(5, 3, 1.5), squeeze=True
    )
    figure.suptitle(title)

    # The square root brings weak peaks out; beyond the percentiles lie hot bins.
    values = np.where(np.isfinite(series.intensity), series.intensity, np.nan)
    values = np.sqrt(values - np.nanmin(values))
    low, high = np.nanpercentile(values, (1, 99.8))
    position = np.arange(len(series))
    heat.pcolormesh(
        position,
        series.axis,
        values.T,
        shading="nearest",
        vmin=low,
        vmax=high,
        cmap="viridis",
        rasterized=True,
    )
    heat.set_ylabel(AXIS[series.unit])

    for k, name in enumerate(classes):
        colour = colour_of(name, k)
        probability.plot(found.index, found.probability[:, k], color=colour, label=name)
        ours = found.index[found.label == k]
        probability.plot(ours, np.full(len(ours), 1.05 + 0.04 * k), ".", color=colour, ms=3)
        if labels is not None:
            given = labels.index[labels.label == k]
            probability.plot(
                given, np.full(len(given), 1.05 + 0.04 * k), "o", color=colour, mfc="none"
            )
    for zone in found.zones:
        after, before = found.boundary(zone)
        if zone.n_ambiguous:
            for axes in (probability, novelty):
                axes.axvspan(after + 0.5, before - 0.5, color="0.85", zorder=0)
        elif 0 <= zone.after < len(found.index) - 1:
            probability.axvline((after + before) / 2, color="0.6", ls=":")
    probability.set_ylabel("probability")
    probability.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    novelty.plot(found.index, found.novelty, color="0.3")
    novelty.axhline(1, color="0.6", ls=":")
    novelty.set_ylabel("novelty")
    novelty.set_ylim(bottom=0)
    novelty.set_xlabel("position in the series")
    given = "circles: those given; " if labels is not None else ""
    caption(
        figure,
        f"dots: the model's labels; {given}grey: ambiguous; dotted: a change between two patterns\n"
        "novelty above 1: unlike what was learnt",
    )
    figure.savefig(path, dpi=110)
