"""Pictures of a run: the waterfall of its patterns, and beside it what was found or what is true.

Frames run upwards in all panels, so that a line drawn across them is one moment.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from phasewatch.bench.panels import INK, legend, new_figure, truth_strip, waterfall
from phasewatch.bench.truth import read_truth
from phasewatch.bench.twin.crystal import Phase, reflections
from phasewatch.bench.twin.experiment import CLASSES, distortion
from phasewatch.bench.twin.run import Run
from phasewatch.models.palette import colour_of
from phasewatch.pipeline.documents import Event
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.result import Result, read_result


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
    if not len(result.seq):
        raise PipelineError(f"{result_path}: holds no patterns: there is nothing to draw")
    classified = "probability" in result.arrays
    panels = 1 + classified + (truth is not None)
    figure, axes = new_figure(panels)
    waterfall(
        axes[0], result.axis, result.seq, result.arrays["intensity"], unit=str(result.start.unit)
    )
    if classified:
        _probabilities(axes[1], result)
    if truth is not None:
        truth_strip(axes[-1], *truth)
    for zone in result.zones:
        for ax in axes:
            colour = "white" if ax is axes[0] else "0.5"
            ax.axhspan(zone.after + 0.5, zone.before - 0.5, color=colour, alpha=0.25, lw=0)
    _events(axes, result.events)
    names = result.start.classes or (CLASSES if truth else ())
    if names:
        legend(figure, {name: colour_of(name, k) for k, name in enumerate(names)})
    confidence = result.confidence
    known = np.isfinite(confidence)
    said = f", classification confidence {confidence:.1%}" if known else ""
    axes[0].set_title(
        f"{Path(result_path).name}: {len(result.seq)} patterns{said}", loc="left", fontsize=9
    )
    figure.savefig(out_png, format="png")


def draw_truth(run: Run, out_png: Path) -> None:
    """Draw the noise-free patterns of a simulated run with its true pressure and classes."""
    n = run.conditions.frames
    rows = np.arange(0, n, -(-n // 200))  # evenly: an empty row is a missing frame
    patterns = np.stack([run.expected(i) for i in rows.tolist()])
    figure, axes = new_figure(2)
    waterfall(axes[0], run.axis, rows, patterns, unit="2th_deg", bar="counts per pixel")
    truth_strip(axes[1], np.arange(n), run.pressure_gpa, [CLASSES[c] for c in run.label])
    name_lines(axes[0], run)
    legend(figure, {name: colour_of(name, k) for k, name in enumerate(CLASSES)})
    axes[0].set_title(
        f"{run.experiment.name}, seed {run.conditions.seed}: expected patterns; "
        f"{run.conditions.rate_gpa_s:.0f} GPa/s, {run.conditions.exposure_s * 1e3:.1f} ms a frame",
        loc="left",
        fontsize=9,
    )
    figure.savefig(out_png, format="png")


def _probabilities(ax: Axes, result: Result) -> None:
    for k, name in enumerate(result.start.classes):
        colour = colour_of(name, k)
        ax.plot(result.arrays["probability"][:, k], result.seq, color=colour, lw=0.6, alpha=0.6)
        if "posterior" in result.arrays:
            ax.plot(result.arrays["posterior"][:, k], result.seq, color=colour, lw=1.8)
    ax.set_xlim(-0.04, 1.04)
    ax.set_xticks([0, 0.5, 1])
    ax.set_xlabel("probability (thin),\nposterior (bold)")


def _events(axes: list[Axes], events: Sequence[Event]) -> None:
    for event in events:
        for ax in axes:
            ax.axhline(event.seq, color="white" if ax is axes[0] else INK, lw=0.9, ls="--")
        axes[0].annotate(
            f"{event.kind}, frame {event.id}",
            xy=(0.985, event.seq),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color="white",
        )


def name_lines(ax: Axes, run: Run) -> None:
    """Name the lines at the start of `run` below, those at its end above; `ax` has two theta."""
    experiment, last = run.experiment, run.conditions.frames - 1
    extras = [extra.phase for extra in experiment.extras if extra.role != "gasket"]
    for phase in (experiment.low, *extras):
        _name(ax, run, phase, 0, height=0.012)
    _name(ax, run, experiment.high, last, height=0.988)


def _name(ax: Axes, run: Run, phase: Phase, i: int, *, height: float) -> None:
    lo, hi = ax.get_xlim()
    wavelength_a, pressure = run.experiment.wavelength_m * 1e10, float(run.pressure_gpa[i])
    found = reflections(
        phase,
        pressure,
        d_min=wavelength_a / (2 * np.sin(np.radians(hi / 2))),
        distortion=distortion(run.experiment, run.conditions, phase, pressure),
    )
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
