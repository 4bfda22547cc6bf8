"""A sheet of experiments: the patterns of each as a map, its truth, and what it is.

Intensity is shown as a root, each pattern over its own median, so that faint lines and noise are
both seen; the dashed lines are the true onset (1 %) and end (99 %) of the transition, the solid one
its middle.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from phasewatch.bench.panels import INK, legend, truth_strip
from phasewatch.bench.picture import name_lines
from phasewatch.bench.twin.experiment import CLASSES
from phasewatch.bench.twin.run import Run
from phasewatch.models.palette import colour_of

COLUMNS = 2
SIZE_INCHES = (9.5, 3.9)  # of one experiment
BINS_TOGETHER = 3


def draw_sheet(
    runs: Sequence[Run], out_png: Path, *, progress: Callable[[int], None] = lambda done: None
) -> None:
    """Draw `runs`, one beside the other; `progress` gets the number drawn, after each."""
    columns = min(COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    width, height = SIZE_INCHES
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    ratios = [1.5, 3.6, 1.0] * columns
    axes = figure.subplots(rows, 3 * columns, squeeze=False, width_ratios=ratios)
    for ax in axes.ravel():
        ax.set_visible(False)
    for k, run in enumerate(runs):
        row, column = divmod(k, columns)
        _draw(axes[row, 3 * column : 3 * column + 3].tolist(), run)
        progress(k + 1)
    legend(figure, {name: colour_of(name, k) for k, name in enumerate(CLASSES)})
    figure.savefig(out_png, format="png")


def description(run: Run) -> str:
    """Return what `run` is, in a few lines."""
    given, drawn = run.experiment, run.conditions
    counts = np.bincount(run.label, minlength=len(CLASSES))
    numbers = ", ".join(f"{n} {name}" for n, name in zip(counts.tolist(), CLASSES, strict=True))
    extras = [
        f"{extra.phase.name} ({extra.role}) {height:.0%}"
        for extra, height in zip(given.extras, drawn.heights, strict=True)
    ]
    lines = [
        *textwrap.wrap(given.title, 30),
        "",
        f"{drawn.frames} patterns",
        *numbers.split(", "),
        f"middle at {_middle(run)}",
        "",
        f"{run.pressure_gpa[0]:.1f} to {run.pressure_gpa[-1]:.1f} GPa",
        f"{drawn.rate_gpa_s:.3g} GPa/s",
        f"exposure {drawn.exposure_s * 1e3:.3g} ms",
        f"{drawn.counts_per_pixel:.2g} counts per pixel",
        *extras,
        "",
        *textwrap.wrap(f"Printed: {given.printed}", 30),
    ]
    return "\n".join(lines)


def _middle(run: Run) -> int:
    return int(np.argmax(run.fraction >= 0.5))


def _draw(axes: list[Axes], run: Run) -> None:
    text, image, truth = axes
    for ax in axes:
        ax.set_visible(True)
    text.axis("off")
    text.text(0, 1, run.experiment.name, va="top", fontsize=14, weight="bold", color=INK)
    text.text(0, 0.87, description(run), va="top", fontsize=8, color=INK, linespacing=1.35)
    n = run.conditions.frames
    patterns = np.stack([run.pattern(i) for i in range(n)]).astype(float)
    patterns /= np.median(patterns, axis=1, keepdims=True)
    keep = patterns.shape[1] // BINS_TOGETHER * BINS_TOGETHER
    patterns = patterns[:, :keep].reshape(n, -1, BINS_TOGETHER).mean(axis=2)
    low, high = np.percentile(patterns, (1, 99.8))
    image.imshow(
        np.sqrt(np.clip(patterns - low, 0, high - low)),
        aspect="auto",
        origin="lower",
        extent=(float(run.axis[0]), float(run.axis[keep - 1]), -0.5, n - 0.5),
        cmap="magma",
        interpolation="antialiased",
    )
    image.set_xlabel("two theta (deg)")
    image.set_ylabel("pattern")
    truth_strip(truth, np.arange(n), run.pressure_gpa, [CLASSES[c] for c in run.label])
    truth.set_ylim(-0.5, n - 0.5)
    truth.set_xlabel("pressure (GPa)")
    truth.set_yticks([])
    for boundary in np.flatnonzero(np.diff(run.label)):
        image.axhline(boundary + 0.5, color="white", lw=0.8, ls="--")
        truth.axhline(boundary + 0.5, color=INK, lw=0.8, ls="--")
    name_lines(image, run)
    image.axhline(_middle(run) - 0.5, color="white", lw=0.8)
