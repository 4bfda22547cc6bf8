"""The log: lines on standard error, for people or as JSON, each with time, run, role and pid.

`configure` is called once in each process, and `bind` when it knows its run. The form goes to child
processes through the environment (`FORM`). The last warning or error of this process can be asked
for with `last_error`, so that it gets into the status of the run.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from phasewatch.pipeline.errors import PipelineError

Form = Literal["console", "json"]
FORM = "PHASEWATCH_LOG"  # in the environment: console or json
ALARMS = ("warning", "error", "critical")
_bound: dict[str, Any] = {}  # in each line, of every thread
_last = {"error": ""}


def chosen(form: str | None = None) -> Form:
    """Return `form`, or else what the environment says, or else ``console``.

    Raises
    ------
    PipelineError
        It is no form of a log.
    """
    where, value = ("--log-format", form) if form else (FORM, os.environ.get(FORM, "console"))
    if value not in get_args(Form):
        raise PipelineError(f"{where} {value}: one of {', '.join(get_args(Form))}")
    return cast(Form, value)


def configure(role: str, *, form: str | None = None, debug: bool = False) -> None:
    """Log as `role`, in `form` or that of the parent process; child processes will do the same.

    Parameters
    ----------
    role
        What this process does, ``reducer-0``.
    form
        ``console`` or ``json``; None: what the environment says, or else ``console``.
    debug
        Log what is below ``info`` too.
    """
    known = chosen(form)
    os.environ[FORM] = known
    _bound.clear()
    bind(role=role, pid=os.getpid())
    level = logging.DEBUG if debug else logging.INFO
    structlog.configure(
        processors=processors(known),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is at that time
        cache_logger_on_first_use=False,
    )
    # pyFAI can do without OpenCL, and we do.
    logging.getLogger("silx.opencl.common").setLevel(logging.ERROR)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, Forward)]:
        root.removeHandler(handler)
    root.addHandler(Forward(level=logging.WARNING))


def bind(**facts: Any) -> None:
    """Say `facts` in each line from now on: ``bind(role="supervisor", run=run_id)``."""
    _bound.update(facts)


def processors(form: Form) -> list[Processor]:
    """Return what makes a line of an event."""
    render: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=str)]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]
    )
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        whose,
        remember,
        *render,
    ]


def whose(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Add what is bound to `event`."""
    return {**_bound, **event}


def remember(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Keep the text of `event` if it is a warning or worse."""
    if event.get("level") in ALARMS:
        details = event.get("error") or (event.get("exc_info") and sys.exc_info()[1])
        _last["error"] = f"{event['event']}: {details}" if details else str(event["event"])
    return event


def last_error() -> str:
    """Return the last warning or error that this process logged; empty if there was none."""
    return _last["error"]


class Forward(logging.Handler):
    """Gives what libraries log by `logging` to our log, so that each line has the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record`."""
        log: Callable[..., Any] = structlog.get_logger().log
        log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
