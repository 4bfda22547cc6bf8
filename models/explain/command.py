"""``phasewatch explain``: pictures, arrays and figures of why a model says what it says."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phasewatch.models.commands import _progress
from phasewatch.models.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from phasewatch.models.card import Card
    from phasewatch.models.explain.explanation import Explanation
    from phasewatch.models.series import Series

ARRAYS = "explanation.npz"
FIGURES = "explanation.json"


class Method(StrEnum):
    """How to attribute a label to points (`phasewatch.models.explain.gradients`)."""

    gradient = "gradient"
    absolute = "absolute"
    input_x_gradient = "input-x-gradient"
    integrated = "integrated"


class Baseline(StrEnum):
    """From where integrated gradients start."""

    mean = "mean"
    zero = "zero"


def explain(
    folder: Annotated[Path, typer.Argument(help="Folder of the model.")],
    series: Annotated[
        str, typer.Argument(help="Patterns: .npz, folder of .xy, NeXus/HDF5 or a result.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for pictures, arrays and figures.")] = Path(
        "explained"
    ),
    method: Annotated[
        list[Method] | None,
        typer.Option(
            metavar="METHOD", help=f"One of {', '.join(Method)}; may be repeated. Default: all."
        ),
    ] = None,
    peaks: Annotated[
        Path | None,
        typer.Option(help="True Bragg peaks; default: peaks.npz beside the series, if there."),
    ] = None,
    baseline: Annotated[
        Baseline, typer.Option(help="Of integrated gradients: the series' mean pattern, or 0.")
    ] = Baseline.mean,
    steps: Annotated[int, typer.Option(min=1, help="Of integrated gradients.")] = 32,
    every: Annotated[int, typer.Option(min=1, help="Explain every so many patterns.")] = 1,
) -> None:
    """Show what in the patterns of a series makes a model label them as it does."""
    from phasewatch.models.evaluate import evaluate
    from phasewatch.models.explain import explanation
    from phasewatch.models.explain.draw import draw_all
    from phasewatch.models.predict import Predictor
    from phasewatch.models.series import read_series
    from phasewatch.models.store import load

    if out.exists() and not out.is_dir():
        raise ModelError(f"{out} is a file; --out is the folder to write to")
    net, card, novelty = load(folder)
    patterns = read_series(series)
    regions, where = _regions(peaks, patterns, Path(series.partition("#")[0]))
    with _progress("classifying") as progress:
        found = evaluate(Predictor(net, card, novelty, device="cpu"), patterns, progress=progress)
    told = explanation.explain(
        net,
        card,
        patterns,
        found,
        methods=[m.value for m in dict.fromkeys(method or Method)],
        regions=regions,
        zero=baseline is Baseline.zero,
        steps=steps,
        every=every,
        bar=_progress,
    )
    out.mkdir(parents=True, exist_ok=True)
    explanation.save(out / ARRAYS, told, patterns.axis)
    with _progress("drawing") as progress:
        pictures = draw_all(out, told, card, patterns, progress=progress)
    figures = {
        "model": card.sha256,
        "series": patterns.source,
        "series_digest": patterns.digest,
        "baseline": baseline.value,
        "steps": steps,
        "every": every,
        "peaks": None if where is None else where.name,
        **explanation.figures(told, card),
        "pictures": pictures,
    }
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    _show(told, card, where)
    typer.echo(f"explained: {out}: {', '.join([*pictures, ARRAYS, FIGURES])}")


def _regions(
    given: Path | None, series: "Series", path: Path
) -> tuple["NDArray[np.bool_] | None", Path | None]:
    """Read the true peaks: those given, else those beside the series, if there are any."""
    from phasewatch.models.explain.peaks import FILE, read_peaks

    where = given or path.parent / FILE
    if given is None and not where.is_file():
        return None, None
    return read_peaks(where, axis=series.axis, index=series.index), where


def _show(told: "Explanation", card: "Card", peaks: Path | None) -> None:
    """Print what there is, and where the importance falls."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not told.importance:
        console.print(
            f"{card.architecture} votes and has no gradient: its loadings and the contribution of "
            "each point are shown"
        )
    for name, one in told.importance.items():
        if one.incomplete:
            console.print(f"{name}: {one.incomplete}; --steps helps unless the network votes")
    if not told.importance or peaks is None:
        return
    table = Table(title="share of the importance on Bragg peaks: fraction (chance) ratio")
    for head in ("method", "patterns", "peaks in the pattern", "peaks anywhere in the run"):
        table.add_column(head)
    for name in told.importance:
        if name == "absolute" and "gradient" in told.importance:
            continue  # the same by definition
        shares = told.shares(name)
        for key in shares["present"]:
            both = [shares[region][key] for region in ("present", "run")]
            cells = (
                "none" if s.fraction is None else f"{s.fraction:.3f} ({s.chance:.3f}) {s.ratio:.1f}"
                for s in both
            )
            table.add_row(name, "all" if isinstance(key, str) else card.classes[key], *cells)
    console.print(table)
