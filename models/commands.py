"""``phasewatch train`` and ``phasewatch evaluate``."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phasewatch.models import registry
from phasewatch.models.errors import ModelError

if TYPE_CHECKING:
    from phasewatch.models.evaluate import Evaluation
    from phasewatch.models.series import Series

REPORT = "report.png"
FIGURES = "evaluation.json"


def train(
    series: Annotated[
        str, typer.Argument(help="Patterns: .npz, folder of .xy, NeXus/HDF5 or a result.")
    ],
    labels: Annotated[Path, typer.Option(help="CSV with the columns index,label.")],
    model: Annotated[str, typer.Option(help=f"Architecture: {', '.join(registry.names())}.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same weights.")] = 0,
    recipe: Annotated[
        str, typer.Option(help="How: phasewatch, or thesis, as published.")
    ] = "phasewatch",
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Earlier patterns that a sequence network looks back to."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes in order: a,b,c. Default: as they appear.")
    ] = None,
) -> None:
    """Train a model on a few labelled patterns of a series."""
    from phasewatch.models import report, store, training
    from phasewatch.models.evaluate import evaluate as evaluate_on
    from phasewatch.models.labels import read_labels
    from phasewatch.models.predict import Predictor
    from phasewatch.models.recipes import named
    from phasewatch.models.series import read_series

    registry.module(model)
    how = named(recipe, model, epochs=epochs)
    options: dict[str, Any] = {} if context is None else {"context": context}
    _refuse_other_folder(out)
    patterns = read_series(series)
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    given = read_labels(labels, series_index=patterns.index, classes=names)
    with _progress(f"training {model}") as progress:
        net, card, novelty = training.train(
            patterns, given, model=model, seed=seed, recipe=how, progress=progress, **options
        )
    predictor = Predictor(net, card, novelty, device="cpu")
    with _progress("classifying the series") as progress:
        found = evaluate_on(predictor, patterns, given, progress=progress)
    card = card.model_copy(update={"metrics": {f"{patterns.source} (trained on)": found.metrics()}})
    store.save(out, net, card, novelty)
    title = f"{card.architecture}, trained on {len(given.index)} patterns of {patterns.source}"
    report.draw(out / REPORT, patterns, found, card.classes, labels=given, title=title)
    _show(found, patterns, card.classes, "accuracy (labels trained on)")
    typer.echo(f"model: {out}")


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of the model.")],
    series: Annotated[
        str, typer.Argument(help="Patterns: .npz, folder of .xy, NeXus/HDF5 or a result.")
    ],
    labels: Annotated[Path | None, typer.Option(help="CSV with the columns index,label.")] = None,
    out: Annotated[Path | None, typer.Option(help=f"Folder for {REPORT} and {FIGURES}.")] = None,
) -> None:
    """Classify a series with a model; with labels, say how many agree."""
    from phasewatch.models import report
    from phasewatch.models.evaluate import evaluate as evaluate_on
    from phasewatch.models.labels import read_labels
    from phasewatch.models.predict import Predictor
    from phasewatch.models.series import read_series

    predictor = Predictor.load(folder)
    card = predictor.card
    patterns = read_series(series)
    given = None
    if labels is not None:
        given = read_labels(labels, series_index=patterns.index, classes=card.classes)
    with _progress("classifying") as progress:
        found = evaluate_on(predictor, patterns, given, progress=progress)
    _show(found, patterns, card.classes, "accuracy")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        title = f"{card.architecture} ({folder.name}) on {patterns.source}"
        report.draw(out / REPORT, patterns, found, card.classes, labels=given, title=title)
        text = json.dumps({"series": patterns.source, "model": card.sha256, **found.metrics()})
        (out / FIGURES).write_text(text + "\n", encoding="utf-8")
        typer.echo(f"report: {out}")


def _refuse_other_folder(out: Path) -> None:
    """Raise where `out` is a file, or a folder that holds anything but a model of ours."""
    from phasewatch.models.card import CARD, WEIGHTS

    if out.exists() and not out.is_dir():
        raise ModelError(f"{out} is a file; --out is the folder to write the model to")
    if out.is_dir():
        other = sorted({p.name for p in out.iterdir()} - {CARD, WEIGHTS, REPORT})
        if other:
            raise ModelError(f"{out} holds {other[0]}; --out must be new, empty or a model")


@contextmanager
def _progress(what: str) -> Iterator[Callable[..., None]]:
    """Show a bar; give the function that moves it: done, total and perhaps a loss."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}")) as bar:
        task = bar.add_task(what, total=None, note="")

        def move(done: int, total: int, loss: float | None = None) -> None:
            note = "" if loss is None else f"loss {loss:.4f}"
            bar.update(task, completed=done, total=total, note=note)

        yield move
        # It may have stopped early: what was left is not to be waited for.
        bar.update(task, total=bar.tasks[0].completed)


def _show(found: "Evaluation", series: "Series", classes: tuple[str, ...], accuracy: str) -> None:
    """Print the table of results."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    n_bad = len(series) - len(found.index)
    table.add_row("patterns", f"{len(found.index)}" + (f" ({n_bad} unusable)" if n_bad else ""))
    if found.accuracy is not None:
        table.add_row(accuracy, f"{100 * found.accuracy:.2f} % of {found.n_labelled}")
    table.add_row("classification confidence", f"{100 * found.confidence:.2f} %")
    for zone in found.zones:
        table.add_row(
            f"{classes[zone.boundary]} -> {classes[zone.boundary + 1]}",
            _between(*found.boundary(zone), series),
        )
    table.add_row("mean probability of the label", f"{found.probability.max(axis=1).mean():.4f}")
    table.add_row("novel (score > 1)", f"{int((found.novelty > 1).sum())}")
    Console().print(table)


def _between(after: int, before: int, series: "Series") -> str:
    if after < 0 and before >= len(series):
        return "nowhere"
    if after < 0:
        return f"before pattern {before}"
    if before >= len(series):
        return f"not by pattern {after}"
    text = f"between patterns {after} and {before}"
    if series.order is not None:
        text += f", {series.order_name} {series.order[after]:g} and {series.order[before]:g}"
    return text
