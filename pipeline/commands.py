"""The commands of the chain: run, status, stop, reset, load, worker, keys, plugins."""

import signal
import sys
from contextlib import suppress
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from phasewatch.pipeline.config import Config, load_config
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Status, parse_status
from phasewatch.pipeline.live_status import follow, render, show
from phasewatch.pipeline.plugin import found, keys_of
from phasewatch.pipeline.processes.control import next_path
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.progress import ProgressLine
from phasewatch.pipeline.summary import lines, write_summary
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.request import Caller, NoAnswerError

Address = Annotated[
    str, typer.Argument(help="What `phasewatch run` printed as control, tcp://127.0.0.1:PORT.")
]
KeyFolder = Annotated[
    Path | None,
    typer.Option("--keys", help="Folder of keys, if the run has [runtime] keys."),
]
EVERY_S = 1.0
WIDTH = 160  # of the table where there is no terminal
RunId = Annotated[str, typer.Option("--run", help="Only this run: its id, or how that begins.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for an answer.")]


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
    checked = load_config(config, source=source, out=out)
    if summary is not None and not summary.absolute().parent.is_dir():
        raise PipelineError(f"--summary {summary}: there is no folder {summary.parent}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the first Ctrl-C: stop in order
    following: Config | None = checked
    while following is not None:
        following = _run(following, summary)
        summary = None if summary is None else next_path(summary)
    return 0


def _run(config: Config, summary: Path | None) -> Config | None:
    """Run `config` to its end; return the configuration of the run that is to follow."""
    seen: list[View] = []
    with ProgressLine(Console()) as progress:

        def update(view: View) -> None:
            seen[:] = [view]
            progress(view)

        outcome = supervise(config, on_update=update)
    stop = outcome.stop
    if stop is not None and (outcome.error is None or stop.loss.received):
        for text in lines(stop, seen[0].classes):
            typer.echo(text)
    if stop is not None and summary is not None:
        write_summary(stop, summary)
        typer.echo(f"summary {summary}")
    for path in (sink.options["path"] for sink in config.sink if "path" in sink.options):
        if seen[0].written:
            typer.echo(f"result {path}")
    if outcome.error is not None:
        raise PipelineError(outcome.error)
    return outcome.next


def status(
    address: Address,
    wait: Wait = 2.0,
    keys: KeyFolder = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it once, as JSON.")] = False,
) -> None:
    """Show how a run and its processes are, live until it is over or Ctrl-C; else once."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    with Caller(address, keys=_keys(keys)) as caller:

        def ask() -> Status:
            return parse_status(caller.ask("status", timeout_s=wait), where=address)

        def again() -> Status | None:
            try:
                return ask()
            except NoAnswerError:
                return None

        first = ask()
        if as_json:
            typer.echo(first.model_dump_json(indent=2))
        elif once or not console.is_terminal:
            console.print(render(first))
        else:
            with suppress(KeyboardInterrupt):
                show(chain([first], follow(lambda: caller.pause(EVERY_S), again)), console)
                typer.echo(f"no answer any more from {address}: the run is over")


def stop(address: Address, wait: Wait = 2.0, keys: KeyFolder = None, run: RunId = "") -> None:
    """Stop the source of a run; what was received still comes through."""
    with Caller(address, keys=_keys(keys)) as caller:
        there = _run_id(caller, wait, run)
        caller.ask("stop", timeout_s=wait, run_id=there)  # another may have come since
    typer.echo(f"stopping run {there}")


def reset(address: Address, wait: Wait = 2.0, keys: KeyFolder = None, run: RunId = "") -> None:
    """Let the tracker of a run begin anew with the next item; an event says which it was."""
    with Caller(address, keys=_keys(keys)) as caller:
        there = _run_id(caller, wait, run)
        caller.ask("reset", timeout_s=wait, run_id=there)
    typer.echo(f"the tracker of run {there} begins anew with the next item")


def load(
    address: Address,
    model: Annotated[Path | None, typer.Option(help="Folder of the model to take.")] = None,
    poni: Annotated[Path | None, typer.Option(help="Geometry to take.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask to take.")] = None,
    dark: Annotated[Path | None, typer.Option(help="Dark to take.")] = None,
    flat: Annotated[Path | None, typer.Option(help="Flat field to take.")] = None,
    at_end: Annotated[
        bool, typer.Option("--at-end", help="Not now, but when the source ends by itself.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that it may take to try.")] = 60.0,
    keys: KeyFolder = None,
    run: RunId = "",
) -> None:
    """Go on with another model or calibration: tried first; then a run ends and the next begins.

    The files must be on the host of the run. What was received comes through in the present run,
    with what it began with; result files of the next one get a number: result.2.nxs.
    It lasts until the process of the run ends: the configuration file stays as it is.
    """
    named = {"model": model, "poni": poni, "mask": mask, "dark": dark, "flat": flat}
    files = {key: str(path.absolute()) for key, path in named.items() if path is not None}
    with Caller(address, keys=_keys(keys)) as caller:
        there = _run_id(caller, 2.0, run)
        said = caller.ask("load", timeout_s=wait, run_id=there, at_end=at_end, **files)
    digests = said.get("digests")
    for name, digest in (digests if isinstance(digests, dict) else {}).items():
        typer.echo(f"{name} {digest}")
    typer.echo(f"the next run begins with it when run {there} has ended")
    typer.echo("a chain that is started again takes what its configuration file names")


def _run_id(caller: Caller, wait: float, wanted: str) -> str:
    there = parse_status(caller.ask("status", timeout_s=wait), where=caller.address).run_id
    if not there.startswith(wanted):
        raise PipelineError(f"{caller.address}: run {there} is there, not {wanted}")
    return there


class _Role(StrEnum):
    reducer = "reducer"


def worker(
    connect: Annotated[str, typer.Option(help="[runtime] listen of the run, tcp://HOST:PORT.")],
    role: Annotated[_Role, typer.Option(help="What to do.")] = _Role.reducer,
    keys: KeyFolder = None,
) -> int:
    """Work for a run of another host, until it is over or Ctrl-C; what is left goes to others.

    The files that the configuration names (PONI, mask, dark, flat) must be at the same paths here,
    as they are on a shared file system; frames come over the network.
    """
    from phasewatch.pipeline.processes.worker import join

    typer.echo(f"{role.value} for {connect}: waiting to be told what to do (Ctrl-C leaves)")
    error = join(role.value, connect, _keys(keys))
    if error is not None:
        raise PipelineError(error)
    typer.echo("left")
    return 0


def keys(
    folder: Annotated[Path, typer.Argument(help="Where to write the keys; new or empty.")],
) -> None:
    """Write keys to FOLDER, so that sockets can be open to other hosts, encrypted."""
    write_keys(folder)
    typer.echo(
        f"{folder}/server.key_secret  stays on the hosts that bind, which have the whole folder\n"
        f"{folder}/client.key_secret  with server.key, to each host that only connects\n"
        f"{folder}/client.key         stays: it lets in who has client.key_secret\n"
        f"{folder}/server.key         public: by it a client knows the server\n"
        f'Then: [runtime] keys = "{folder}" in the configuration, and '
        f"phasewatch status ADDRESS --keys {folder}\n"
        "Copy the secret ones by scp -p only: who has them can stop a run."
    )


def plugins() -> None:
    """List what is installed: sources, sinks, observers, commands; what they do, their keys."""
    for group, form in (
        ("sources", '[source] uri = "{name}:TARGET"'),
        ("sinks", '[[sink]] type = "{name}"'),
        ("observers", "[{name}]"),
        ("commands", "phasewatch {name}"),
    ):
        for name, point in found(group).items():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
            try:
                loaded = point.load()
            except Exception as error:  # one broken package must not hide the others
                typer.echo(f"{form.format(name=name)}   ({package}) cannot be loaded: {error}")
                continue
            typer.echo(f"{form.format(name=name)}   ({package})")
            typer.echo(f"    {(loaded.__doc__ or '').strip().partition(chr(10))[0]}")
            keys = [] if group == "commands" else keys_of(loaded)
            if keys:
                typer.echo(f"    keys: {', '.join(keys)}")


def _keys(folder: Path | None) -> Keys | None:
    return None if folder is None else Keys.load(folder)
