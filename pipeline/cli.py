"""The ``phasewatch`` command: the subcommands that the installed packages offer.

Each is an entry point of the group ``phasewatch.commands``. An error that the user can put right is
one line on standard error and exit code 1; a traceback comes only with ``--debug``.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, version
from typing import Annotated, Any

import typer

from phasewatch.pipeline import logs
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import found
from phasewatch.pipeline.processes.children import DEBUG

HELP = """Says, frame by frame, which phase a sample under a diffraction detector is in.

\b
First steps:
  phasewatch simulate fe-ramp --out run1     an experiment to play with
  phasewatch run run1/run.toml               its clean patterns, run1/result.nxs
  phasewatch train run1/result.nxs --labels run1/labels.csv --model cnn --out model1
then put the model into run1/run.toml, as model = "../model1" under [classifier], and
  phasewatch run run1/run.toml --out run1/watched.nxs
"""

INTERRUPTED = 130  # 128 + SIGINT, as a shell says

LogForm = Annotated[logs.Form | None, typer.Option("--log-format", help="Form of the log lines.")]


def app() -> typer.Typer:
    """Return the command with all subcommands that are installed."""
    built = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @built.callback()
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
        show_version: bool = typer.Option(False, "--version", help="Show the version."),
        log_format: LogForm = None,
    ) -> None:
        logs.configure("phasewatch", form=log_format, debug=DEBUG in os.environ)
        if show_version:
            typer.echo(f"phasewatch {version('phasewatch')}")
            raise typer.Exit

    for name, point in found("commands").items():
        command = _loaded(name, point)
        if isinstance(command, typer.Typer):  # a group of commands
            built.add_typer(command, name=name)
        else:
            built.command(name)(command)
    return built


def _loaded(name: str, point: EntryPoint) -> Callable[..., Any] | typer.Typer:
    """Return the command, or one that says why it cannot be loaded: the others must still work."""
    try:
        command: Callable[..., Any] | typer.Typer = point.load()
        return command
    except Exception as error:
        reason = f"command {name} ({point.value}) cannot be loaded: {error}"

    def broken() -> None:
        raise PipelineError(reason)

    broken.__doc__ = f"Broken: {reason}"
    return broken


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv`; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    if debug:
        os.environ[DEBUG] = "1"
    try:
        code = app()(arguments, standalone_mode=False)
        if code == INTERRUPTED:  # typer's, which says nothing
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except typer.Abort:
        return _fail("aborted", 1)
    except Exception as error:
        if debug:
            raise
        return _fail(_line(error), _code(error))


def _code(error: Exception) -> int:
    return int(getattr(error, "exit_code", 1))


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    message = getattr(error, "format_message", lambda: str(error))()
    text = " ".join(str(message).split())
    if isinstance(error, ValueError | OSError) or hasattr(error, "format_message"):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _fail(line: str, code: int) -> int:
    typer.echo(f"phasewatch: {line}", err=True)
    return code
