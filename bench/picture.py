"""Pictures of a run: the waterfall of its patterns, and beside it what was found or what is true.

Frames run upwards in all panels, so that a line drawn across them is one moment.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from phasewatch.bench.result import Result, read_result, read_truth
from phasewatch.bench.twin.atoms import Floats
from phasewatch.bench.twin.crystal import Phase, reflections
from phasewatch.bench.twin.experiment import CLASSES
from phasewatch.bench.twin.run import Run

# Okabe and Ito (2008): told apart with any colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK = "#333333"
MAX_ROWS = 1500  # a picture has no more; patterns beyond are averaged in groups
AXIS_NAMES = {"2th_deg": "two theta (deg)", "q_nm^-1": "q (1/nm)", "q_A^-1": "q (1/A)"}


def draw(result_path: Path, out_png: Path, truth_csv: Path | None = None) -> None:
    """Draw the run in the result file `result_path`.

    Waterfall of the patterns; probability of each class (thin) and the tracker's posterior (bold);
    with `truth_csv` the true pressure and classes. Ambiguity zones are shaded, events are lines.

    Raises
    ------
    PipelineError
        A file is missing or is not what its name says.
    """
    result = read_result(Path(result_path))
    truth = None if truth_csv is None else read_truth(Path(truth_csv))
    panels = 1 + (result.probability is not None) + (truth is not None)
    figure, axes = _figure(panels)
    _waterfall(axes[0], result.axis, result.seq, result.intensity, unit=result.unit)
    if result.probability is not None:
        _probabilities(axes[1], result)
    if truth is not None:
        _truth(axes[-1], *truth)
    for zone in result.zones:
        for ax in axes:
            colour = "white" if ax is axes[0] else "0.5"
            ax.axhspan(zone["after"] + 0.5, zone["before"] - 0.5, color=colour, alpha=0.25, lw=0)
    _events(axes, result.events)
    names = result.classes or (CLASSES if truth else ())
    if names:
        _legend(figure, {name: _colour(name, k) for k, name in enumerate(names)})
    confidence = result.confidence
    known = confidence is not None and np.isfinite(confidence)
    said = f", classification confidence {confidence:.1%}" if known else ""
    axes[0].set_title(
        f"{Path(result_path).name}: {len(result.seq)} patterns{said}", loc="left", fontsize=9
    )
    figure.savefig(out_png, format="png")


def draw_truth(run: Run, out_png: Path) -> None:
    """Draw the noise-free patterns of a simulated run with its true pressure and classes."""
    n = run.conditions.frames
    rows = np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))
    patterns = np.stack([run.expected(i) for i in rows.tolist()])
    figure, axes = _figure(2)
    _waterfall(axes[0], run.axis, rows, patterns, unit="2th_deg", bar="counts per pixel")
    _truth(axes[1], np.arange(n), run.pressure_gpa, [CLASSES[c] for c in run.label])
    wavelength_a = run.experiment.wavelength_m * 1e10
    for phase, i, y in ((run.experiment.low, 0, 0.012), (run.experiment.high, n - 1, 0.988)):
        _name_lines(axes[0], phase, float(run.pressure_gpa[i]), wavelength_a, y)
    _legend(figure, {name: _colour(name, k) for k, name in enumerate(CLASSES)})
    axes[0].set_title(
        f"{run.experiment.name}, seed {run.conditions.seed}: expected patterns; "
        f"{run.conditions.rate_gpa_s:.0f} GPa/s, {run.conditions.exposure_s * 1e3:.1f} ms a frame",
        loc="left",
        fontsize=9,
    )
    figure.savefig(out_png, format="png")


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.4 + 1.9 * (panels - 1), 6.0), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    widths = [3.4] + [1.0] * (panels - 1)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
    for ax in axes:
        ax.tick_params(colors=INK, width=0.7)
    return figure, list(axes)


def _waterfall(
    ax: Axes,
    axis: Floats,
    seq: NDArray[np.int64],
    intensity: Floats,
    *,
    unit: str,
    bar: str = "intensity",
) -> None:
    image = _rows(seq, intensity)
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
    ax.set_xlabel(AXIS_NAMES.get(unit, unit))
    ax.set_ylabel("frame")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def _rows(seq: NDArray[np.int64], intensity: Floats) -> Floats:
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


def _probabilities(ax: Axes, result: Result) -> None:
    assert result.probability is not None
    for k, name in enumerate(result.classes):
        colour = _colour(name, k)
        ax.plot(result.probability[:, k], result.seq, color=colour, lw=0.6, alpha=0.6)
        if result.posterior is not None:
            ax.plot(result.posterior[:, k], result.seq, color=colour, lw=1.8)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1])
    ax.set_xlabel("probability (thin),\nposterior (bold)")


def _truth(ax: Axes, index: NDArray[np.int64], pressure_gpa: Floats, label: list[str]) -> None:
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
        cmap=ListedColormap([_colour(name, k) for k, name in enumerate(names)]),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        interpolation="nearest",
    )
    ax.set_xlabel("true pressure (GPa),\ntrue class (strip)")


def _colour(name: str, k: int) -> str:
    return COLOURS[CLASSES.index(name) if name in CLASSES else k % len(COLOURS)]


def _legend(figure: Figure, colours: dict[str, str]) -> None:
    lines = [Line2D([], [], color=colour, lw=5, label=name) for name, colour in colours.items()]
    figure.legend(
        handles=lines, loc="outside upper right", ncols=4, frameon=False, handlelength=1.0
    )


def _events(axes: list[Axes], events: list[dict[str, Any]]) -> None:
    for event in events:
        for ax in axes:
            ax.axhline(event["seq"], color="white" if ax is axes[0] else INK, lw=0.9, ls="--")
        axes[0].annotate(
            f"{event['kind']}, frame {event['id']}",
            xy=(0.985, event["seq"]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="white",
        )


def _name_lines(
    ax: Axes, phase: Phase, pressure_gpa: float, wavelength_a: float, height: float
) -> None:
    lo, hi = ax.get_xlim()
    found = reflections(phase, pressure_gpa, d_min=wavelength_a / (2 * np.sin(np.radians(hi / 2))))
    for hkl, d in zip(found.hkl.tolist(), found.d, strict=True):
        x = float(np.degrees(2 * np.arcsin(wavelength_a / (2 * d))))
        if x > lo:
            ax.annotate(
                f"{phase.name} {''.join(map(str, hkl))}",
                xy=(x, height),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                rotation=90,
                va="bottom" if height < 0.5 else "top",
                ha="left",
                color="white",
                fontsize=7,
            )
