"""``phasewatch compare``: which model is right, how sure, at what cost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from phasewatch.bench.contest.contest import Tell

WIDTH = 210  # of the table, where no terminal says otherwise


def compare(
    data: Annotated[
        list[str],
        typer.Option(
            metavar="DATA",
            help="EXPERIMENT of the twin (learnt from run 0, judged on run 1), "
            "EXPERIMENT:TRAIN:TEST (other seeds), FOLDER:FOLDER of two simulated runs with "
            "patterns, or the file of a real series. May be given several times.",
        ),
    ],
    models: Annotated[
        str, typer.Option(help="all, or some: cnn,fcnn,nearest-centroid,change-points-l2,...")
    ] = "all",
    recipe: Annotated[
        str, typer.Option(help="phasewatch, thesis, or both: phasewatch,thesis.")
    ] = "phasewatch",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with other seeds.")] = 5,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with index,label: the truth of a real series.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for results; what is in it is not trained again.")
    ] = Path("comparison"),
    figures: Annotated[
        bool,
        typer.Option("--figures", help="Also confidence against explained variance and bins."),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings side by side, one core each.")] = 1,
) -> None:
    """Compare models by how right they are (bench compare: by speed).

    Trains each, several times, on the same few labelled patterns, beside classifiers of
    scikit-learn and change points without labels; judges boundary, confidence, accuracy,
    calibration and cost on patterns that were not trained on.
    """
    from rich.console import Console
    from rich.table import Table

    from phasewatch.bench.contest import contest, table

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no process
    with _progress() as tell:
        report = contest.run(
            data,
            models=models,
            recipe=recipe,
            seeds=seeds,
            labels=labels,
            out=out,
            figures=figures,
            at_once=jobs,
            tell=tell,
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    for part in report.parts:
        shown = Table(*table.headings(part.columns), title=part.data.name, title_justify="left")
        for column in shown.columns[2:]:
            column.justify = "right"
        shown.columns[0].no_wrap = shown.columns[1].no_wrap = True
        for row in part.rows:
            shown.add_row(*table.cells(row, part.columns))
        console.print(shown)
        for text in part.remarks:
            console.print(text, markup=False)
    for failure in report.failures:
        typer.echo(failure, err=True)
    typer.echo(f"results: {out}")
    if report.failures:
        raise typer.Exit(1)


@contextmanager
def _progress() -> "Iterator[Tell]":
    """Show a bar for all there is to do, and one for what is at it; give what moves them."""
    from rich.console import Console
    from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns()[:3], TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int, note: str) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None, note="")
            bar.update(tasks[what], completed=done, total=total or None, note=note)
            if total and done >= total and what != "all":
                bar.remove_task(tasks.pop(what))

        yield tell
