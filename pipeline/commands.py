"""The commands of the chain: run, status, stop, plugins."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from phasewatch.pipeline.config import load_config
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import found
from phasewatch.pipeline.progress import ProgressLine
from phasewatch.pipeline.summary import lines, write_summary
from phasewatch.pipeline.transport.request import request

Address = Annotated[
    str, typer.Argument(help="What `phasewatch run` printed as control, tcp://127.0.0.1:PORT.")
]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for an answer.")]


def run(
    config: Annotated[Path, typer.Argument(help="The configuration, a TOML file.")],
    source: Annotated[
        str | None, typer.Option(help="Take this source, e.g. lambda-nexus:/data/run42, instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the results to this NeXus file instead.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write loss table, zones and latencies to this JSON file.")
    ] = None,
) -> int:
    """Run the chain that CONFIG describes, as processes, until the source ends or Ctrl-C.

    A first Ctrl-C stops the source and lets what was received come through; a second one ends all.
    The exit code is not 0 when the chain could not go on.
    """
    from phasewatch.pipeline.processes.supervisor import supervise

    console = Console()
    checked = load_config(config, source=source, out=out)
    with ProgressLine(console) as progress:
        told = False

        def update(view: Any) -> None:
            nonlocal told
            if not told:
                told = True
                console.print(f"control {view.control} (phasewatch status, stop)", highlight=False)
            progress(view)

        outcome = supervise(
            checked, on_update=update, debug=bool(os.environ.get("PHASEWATCH_DEBUG"))
        )
    if outcome.stop is not None:
        for text in lines(outcome.stop):
            console.print(text, highlight=False, soft_wrap=True)
        if summary is not None:
            write_summary(outcome.stop, summary)
            console.print(f"summary {summary}", highlight=False, soft_wrap=True)
        for sink in checked.sink:
            if "path" in sink.options:
                console.print(f"result {sink.options['path']}", highlight=False, soft_wrap=True)
    if outcome.error is not None:
        raise PipelineError(outcome.error)
    return 0


def status(address: Address, wait: Wait = 2.0) -> None:
    """Show how the processes of a run are: what they have done, and how old that news is."""
    data = request(address, "status", timeout_s=wait)
    console = Console()
    console.print(
        f"run {data['run_id']} from {data['source']}, expected {data['expected']}", highlight=False
    )
    table = Table("process", "age s", "state")
    for role, health in sorted(data["processes"].items()):
        state = ", ".join(f"{k} {_short(v)}" for k, v in health.items() if k != "age_s")
        table.add_row(role, f"{health['age_s']:.1f}", state)
    console.print(table)
    for event in data["events"]:
        console.print(f"{event['kind']} at {event['seq']} (id {event['id']})", highlight=False)


def stop(address: Address, wait: Wait = 2.0) -> None:
    """Stop the source of a run; what was received still comes through."""
    data = request(address, "stop", timeout_s=wait)
    Console().print(f"stopping run {data['run_id']}", highlight=False)


def plugins() -> None:
    """List the sources, sinks and commands that are installed, and what provides them."""
    table = Table("kind", "name", "from", "provides")
    for group in ("sources", "sinks", "commands"):
        for name, point in found(group).items():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
            table.add_row(group[:-1], name, package, point.value)
    Console().print(table)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
