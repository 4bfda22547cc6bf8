"""What the scenarios' commands share: prepare the items and show what goes on; show the report."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from phasewatch.bench.load.options import What

if TYPE_CHECKING:
    from phasewatch.bench.load.session import Finding, Session


@contextmanager
def prepared_session(
    what: What,
    config: Path | None,
    network: str | None,
    model: Path | None,
    seed: int,
    *,
    clean: bool = True,
) -> "Iterator[Session]":
    """Prepare the items and the chain; show what goes on."""
    from rich.console import Console

    from phasewatch.bench.load.session import Session, work_folder
    from phasewatch.bench.load.workload import prepare
    from phasewatch.pipeline.progress import line

    if config is None and network is None and model is None and what is What.patterns:
        network = "fcnn"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no folder, no process
    console = Console(stderr=True, highlight=False)
    with work_folder() as folder, console.status("preparing items") as status:

        def prepared(of: str, done: int, total: int) -> None:
            status.update(f"preparing {of}: {done} of {total}")

        def tell(text: str) -> None:
            console.print(text, markup=False)
            status.update(text)

        workload = prepare(
            folder,
            what=what.value,
            config=config,
            network=network if model is None else None,
            model=model,
            clean=clean,
            seed=seed,
            progress=prepared,
        )
        yield Session(folder, workload, tell, lambda view: status.update(line(view)))


def show(found: "Finding", json_file: Path | None, html: Path | None) -> None:
    """Print a report, and write it where it is wanted."""
    from phasewatch.bench.load.page import page
    from phasewatch.bench.load.report import lines, write_json

    for text in lines(found.report):
        typer.echo(text)
    if json_file is not None:
        write_json(found.report, json_file, found.raw)
        typer.echo(f"report {json_file}")
    if html is not None:
        html.write_text(page(found.report, found.times, found.null), encoding="utf-8")
        typer.echo(f"page {html}")
