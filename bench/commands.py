"""The commands of this package."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from phasewatch.bench.load.commands import SCENARIOS as LOAD


class _Layout(StrEnum):
    lambda2m = "lambda2m"
    p022 = "p022"


class _Kind(StrEnum):
    frames = "frames"
    patterns = "patterns"


def simulate(
    experiment: Annotated[str, typer.Argument(help="Which experiment, e.g. fe-ramp.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    seed: Annotated[int, typer.Option(help="Another seed is another run.")] = 0,
    frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames over the whole ramp; else the experiment's own number."),
    ] = None,
    layout: Annotated[_Layout, typer.Option(help="Detector layout.")] = _Layout.lambda2m,
    kind: Annotated[_Kind, typer.Option("--as", help="What to write.")] = _Kind.frames,
    no_frames: Annotated[
        bool, typer.Option("--no-frames", help="Write all but the data; they are simulated later.")
    ] = False,
    labels: Annotated[int, typer.Option(min=1, help="Number of labelled frames.")] = 12,
) -> None:
    """Simulate a run of an experiment and write it to a folder."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from phasewatch.bench.simulate import write_run
    from phasewatch.bench.twin.run import open_run

    run = open_run(experiment, seed=seed, frames=frames, layout=layout.value)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"{experiment} seed {seed}", total=run.conditions.frames)
        write_run(
            run,
            out,
            kind=kind.value,
            with_data=not no_frames,
            labels=labels,
            progress=lambda done: bar.update(task, completed=done),
        )
    what = "no data" if no_frames else f"{run.conditions.frames} {kind.value}"
    typer.echo(f"{out}: {what}, {run.pressure_gpa[0]:.1f} to {run.pressure_gpa[-1]:.1f} GPa")
    typer.echo(f"configuration: {out / 'run.toml'}; picture: {out / 'run.png'}")


def reduction(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write raw times and the machine's description.")
    ] = None,
) -> None:
    """Integration and baseline against pyFAI and pybaselines, on one core and on all.

    Ours takes 8 frames a call and core (64 patterns a call); the ratio for one a call is beside it.
    """
    import json
    import os

    from rich.console import Console
    from rich.table import Table

    from phasewatch.bench import machine, reduction

    console = Console()
    found = []
    with console.status("") as status:
        for n_cores in sorted({1, len(os.sched_getaffinity(0))}):
            for row in reduction.rows(n_cores, lambda text: status.update(text)):
                found.append(row)
                if json_file is not None:
                    report: dict[str, Any] = {
                        "scenario": "reduction",
                        "machine": machine.describe(),
                        "rows": [reduction.as_json(r) for r in found],
                    }
                    json_file.write_text(json.dumps(report) + "\n", encoding="utf-8")
    columns = "what|of|bins|cores|yardstick|its ms|our ms|ratio|one a call|x memory|deviation"
    table = Table(*columns.split("|"))
    for row in found:
        floor = f"{row.ours_ms / row.floor_ms:.1f}" if row.floor_ms else ""
        single = f"{row.yardstick_ms / row.single_ms:.1f}"
        times = (f"{row.yardstick_ms:.2f}", f"{row.ours_ms:.3f}", f"{row.ratio:.1f}", single)
        table.add_row(
            *(row.what, row.size, str(row.n_bins), str(row.cores), row.yardstick),
            *(*times, floor, f"{row.deviation:.0e}"),
        )
    console.print(table)


bench = typer.Typer(
    help="Measure on this machine: one scenario each, with options of its own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
bench.__doc__ = "Measure on this machine: reduction, load, what a user would write."  # for plugins
# One line per scenario, in the order in which the help shows them.
for _name, _scenario in {"reduction": reduction, **LOAD}.items():
    bench.command(_name)(_scenario)
