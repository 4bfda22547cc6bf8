"""``phasewatch cake``: one frame over azimuth and radius, with its pattern below.

What to look at before a run: rings that are straight lines say that the geometry is right; even
lines are a powder, spots few grains, arcs a texture, and dark stripes what the mask leaves out.
"""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from phasewatch.bench.panels import INK
from phasewatch.bench.twin.atoms import Floats
from phasewatch.calibration.cake import Cake
from phasewatch.calibration.integrate import Integrator
from phasewatch.models.palette import AXIS, COLOURS
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.build import calibration_of
from phasewatch.pipeline.config import load_config
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source

N_BINS, N_AZIMUTH = 1000, 360  # at most; a picture shows no more


def draw_cake(
    config_path: Path, out_png: Path, *, frame: int = 0, source: str | None = None
) -> None:
    """Draw the frame number `frame`, from 0, of the source of a configuration.

    Raises
    ------
    PipelineError, CalibrationError
        What the configuration names is wrong, or there is no such frame.
    """
    config = load_config(config_path, source=source)
    run, item = _read(config.source.uri, config.source.options, frame)
    height, width = run.items["frame"].shape
    calibration, n_bins = calibration_of(config)
    calibration = calibration.with_detector(
        shape=(height, width), mask=run.constants.get("mask"), saturation=run.saturation
    )
    unit, split, limits = config.reduce.unit, config.reduce.split, config.reduce.range
    integrator = Integrator(calibration, n_bins=n_bins, unit=unit, split=split, range=limits)
    split = "bbox" if split == "no" else split  # whole pixels would leave holes
    few, around = min(n_bins, N_BINS), N_AZIMUTH
    cake = Cake(calibration, n_bins=few, n_azimuth=around, unit=unit, split=split, range=limits)
    frames = item.arrays["frame"]
    (pattern,), (image,) = integrator(frames), cake(frames)
    azimuth, image = seen_around(cake.azimuth, image)

    figure = Figure(figsize=(8.3, 6.0), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1.0])
    high = max(float(np.nanpercentile(image, 99.7)), 1e-9)
    above.set_facecolor("0.85")  # where no pixel is
    drawn = above.imshow(
        image,
        aspect="auto",
        origin="lower",
        extent=(*_edges(cake.axis), *_edges(azimuth)),
        cmap="magma",
        norm=PowerNorm(0.6, vmin=max(float(np.nanmin(image)), 0.0), vmax=high),
        interpolation="nearest",
    )
    bar = figure.colorbar(drawn, ax=[above, below], shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("counts per pixel, corrected")
    bar.outline.set_visible(False)
    above.set_ylabel("azimuth (deg)")
    shown = integrator.valid & np.isfinite(pattern)
    below.plot(integrator.axis[shown], pattern[shown], color=COLOURS[0], lw=0.8)
    below.set_ylabel("intensity")
    below.set_xlabel(AXIS.get(unit, unit))
    below.set_xlim(*_edges(integrator.axis))
    above.tick_params(colors=INK, width=0.7)
    below.tick_params(colors=INK, width=0.7)
    above.set_title(f"{run.source[-70:]}: frame {frame}, id {item.ids[0]}", loc="left", fontsize=9)
    try:
        figure.savefig(out_png, format="png")
    except OSError as error:
        raise PipelineError(f"--out {out_png}: {error.strerror}") from None


def seen_around(azimuth: Floats, image: Floats) -> tuple[Floats, Floats]:
    """Return azimuth (n,) and rows of `image` (n, n_bins) without the widest gap of empty rows.

    What lies on both sides of 180 degrees is put together; the azimuth then goes beyond it.
    """
    n, step = len(azimuth), float(azimuth[-1] - azimuth[0]) / max(len(azimuth) - 1, 1)
    rows = np.flatnonzero(np.isfinite(image).any(axis=1))
    around = abs(n * step - 360) < step  # the first row is the neighbour of the last one
    gaps = np.diff(rows, append=rows[0] + n if around else rows[-1] + 1)
    widest = int(gaps.argmax())
    if not around or widest == len(rows) - 1:
        return azimuth[rows[0] : rows[-1] + 1], image[rows[0] : rows[-1] + 1]
    first, height = rows[widest + 1], n - int(gaps[widest]) + 1
    return azimuth[first] + step * np.arange(height), np.roll(image, -first, axis=0)[:height]


def _edges(centres: Floats) -> tuple[float, float]:
    half = float(centres[-1] - centres[0]) / max(len(centres) - 1, 1) / 2
    return float(centres[0]) - half, float(centres[-1]) + half


def _read(uri: str, options: dict[str, object], frame: int) -> tuple[RunStart, Batch]:
    source, seen = open_source(uri, **options), 0
    try:
        run = source.start()
        if "frame" not in run.items:
            raise PipelineError(f"source {uri}: it gives {', '.join(run.items)}, not frames")
        for item in source:
            n = 1 if isinstance(item, Failure) else len(item or ())
            if item is not None and frame < seen + n:
                if isinstance(item, Failure):
                    raise PipelineError(f"source {uri}: frame {frame} is bad: {item.error}")
                return run, item.select(slice(frame - seen, frame - seen + 1))
            seen += n
    finally:
        source.close()
    raise PipelineError(f"--frame {frame}: source {uri} has {seen} frames, counted from 0")
