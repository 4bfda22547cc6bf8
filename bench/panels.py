"""The panels that pictures of a run are made of."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.experiment import CLASSES
from phasewatch.models.palette import AXIS, colour_of

INK = "#333333"
MAX_ROWS = 1500  # a picture has no more; patterns beyond are averaged in groups


def new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, a wide one first; all share the frame number upwards."""
    figure = Figure(figsize=(6.4 + 1.9 * (panels - 1), 6.0), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    widths = [3.4] + [1.0] * (panels - 1)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax in axes:
        ax.tick_params(colors=INK, width=0.7)
    return figure, list(axes)


def waterfall(
    ax: Axes,
    axis: Floats,
    seq: NDArray[np.int64],
    intensity: Floats,
    *,
    unit: str,
    bar: str = "intensity",
) -> None:
    """Draw `intensity` (n, n_bins) on `axis` (n_bins,) as a map, patterns at `seq` (n,)."""
    image = rows_of(seq, intensity)
    extent = (float(axis[0]), float(axis[-1]), float(seq[0]) - 0.5, float(seq[-1]) + 0.5)
    low, high = np.nanpercentile(image, (1, 99.7))
    ax.set_facecolor("0.85")  # where no pattern is
    drawn = ax.imshow(
        image,
        aspect="auto",
        origin="lower",
        extent=extent,
        cmap="magma",
        norm=PowerNorm(0.6, vmin=float(low), vmax=float(max(high, low + 1e-9))),
        interpolation="antialiased",
    )
    colours = ax.figure.colorbar(drawn, ax=ax, location="bottom", shrink=0.5, aspect=35, pad=0.02)
    colours.set_label(bar)
    colours.locator = MaxNLocator(4)
    colours.update_ticks()
    colours.outline.set_visible(False)
    ax.set_xlabel(AXIS.get(unit, unit))
    ax.set_ylabel("frame")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def rows_of(seq: NDArray[np.int64], intensity: Floats) -> Floats:
    """Put each pattern at its place in the stream, NaN where there is none; average groups."""
    span = int(seq[-1] - seq[0]) + 1
    if len(seq) > 1 and span > len(seq):
        gap = int(np.median(np.diff(seq)))
        place = (seq - seq[0]) // max(gap, 1)
    else:
        place = np.arange(len(seq))
    group = -(-int(place[-1] + 1) // MAX_ROWS)
    row = place // group
    total = np.zeros((int(row[-1]) + 1, intensity.shape[1]))
    np.add.at(total, row, intensity)
    count = np.bincount(row, minlength=len(total)).astype(float)
    count[count == 0] = np.nan
    return np.asarray(total / count[:, None])


def truth_strip(ax: Axes, index: NDArray[np.int64], pressure_gpa: Floats, label: list[str]) -> None:
    """Draw pressure (n,) as a line and the classes as a strip beside it, over `index` (n,)."""
    names = [name for name in CLASSES if name in label] or sorted(set(label))
    number = np.array([names.index(name) for name in label])
    ax.plot(pressure_gpa, index, color=INK, lw=1.2)
    lo, hi = float(np.min(pressure_gpa)), float(np.max(pressure_gpa))
    margin = max(0.12 * (hi - lo), 0.1)
    ax.set_xlim(lo - 2 * margin, hi + margin)
    ax.imshow(
        number[:, None],
        aspect="auto",
        origin="lower",
        extent=(lo - 2 * margin, lo - margin, index[0] - 0.5, index[-1] + 0.5),
        cmap=ListedColormap([colour_of(name, k) for k, name in enumerate(names)]),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        interpolation="nearest",
    )
    ax.set_xlabel("true pressure (GPa),\ntrue class (strip)")


def legend(figure: Figure, colours: dict[str, str]) -> None:
    """Name the classes above the panels."""
    lines = [Line2D([], [], color=colour, lw=5, label=name) for name, colour in colours.items()]
    figure.legend(
        handles=lines, loc="outside upper right", ncols=4, frameon=False, handlelength=1.0
    )
