"""What users ask of a run through its control socket, and the answers.

``status``, ``stop``, ``reset`` (the tracker begins anew) and ``load`` (another model or
calibration). What is to be loaded is tried first, in a process of its own; where it is good the
present run ends in order and the next one begins with it, so that the boundary is one of ``seq``
and the ``start`` of the next run has the new digests.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from os.path import exists  # unlike Path.exists it never raises
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.config import CalibrationConfig, Config, SinkConfig
from phasewatch.pipeline.documents import Document
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes.desk import Clock
from phasewatch.pipeline.processes.trial import Trial
from phasewatch.pipeline.processes.view import View, status
from phasewatch.pipeline.transport.links import Link

LOADED = "another configuration was loaded"
PATIENCE_NS = 50_000_000_000  # with a trial: who asks waits for 60 s


def _absolute(path: str) -> str:
    if not Path(path.partition("#")[0]).is_absolute():
        raise ValueError("not an absolute path on the host of the run")
    return path


FilePath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_absolute)]


class Asked(Document):
    """What every command may say: the run it is meant for."""

    run_id: Annotated[str, Field(max_length=128)] | None = None


class Load(Asked):
    """The files to take instead; `at_end`: when the source ends by itself, not now."""

    model: FilePath | None = None
    poni: FilePath | None = None
    mask: FilePath | None = None
    dark: FilePath | None = None
    flat: FilePath | None = None
    at_end: bool = False

    @property
    def files(self) -> dict[str, str]:
        """What is named, by its key."""
        return self.model_dump(include={"model", *IMAGES}, exclude_none=True)


IMAGES = ("poni", "mask", "dark", "flat")
COMMANDS: dict[str, type[Asked]] = {"status": Asked, "stop": Asked, "reset": Asked, "load": Load}


@dataclass(frozen=True, slots=True)
class Pending:
    """A trial, who waits for it until when, and whether the source may end by itself."""

    trial: Trial
    who: bytes
    at_end: bool
    until_ns: int


class Control:
    """The control socket of a run.

    Parameters
    ----------
    link
        The socket, a router.
    config, view
        The run.
    ring
        Descriptor of its shared memory.
    stop, reset
        What ends the source, with a reason, and what lets the tracker begin anew.
    """

    def __init__(
        self,
        link: Link,
        config: Config,
        view: View,
        ring: int,
        *,
        clock: Clock,
        stop: Callable[[str], None],
        reset: Callable[[], None],
    ) -> None:
        self._link, self._config, self._view, self._ring = link, config, view, ring
        self._clock = clock
        self._stop, self._reset = stop, reset
        self._pending: Pending | None = None
        self.resets = 0  # that were asked for
        self._loaded = config  # what the next load changes
        self.loaded = False  # whether a run is to follow

    def hear(self) -> None:
        """Answer who asks."""
        received = self._link.receive()
        if received is None or not isinstance(body := received[1].body, ControlBody):
            return
        try:
            reply = self._do(received[0], body.what, body.data)
        except (ValueError, OSError) as error:  # of no process to try it in as well
            reply = _error(one_line(error))
        if reply is not None:
            self._answer(received[0], reply)

    def check(self) -> None:
        """Take the result of a trial that is over; the next run will be with what was tried."""
        if (pending := self._pending) is None:
            return
        if not pending.trial.over:
            if self._clock() > pending.until_ns:
                self.refuse(f"load: it could not be tried within {PATIENCE_NS // 10**9} s")
                self.close()
            return
        self._pending = None
        try:
            reply = self._take(pending)
        except (ValueError, OSError) as error:
            reply = _error(one_line(error))
        self._answer(pending.who, reply)

    def next(self) -> Config | None:
        """Return the configuration of the run that is to begin now, if one was loaded."""
        return following(self._loaded, self._view.control) if self.loaded else None

    def refuse(self, why: str) -> None:
        """Tell who waits for a trial that there is no result."""
        if self._pending is not None:
            self._answer(self._pending.who, _error(why))

    def close(self) -> None:
        """End a trial that is going on."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.trial.close()

    def _take(self, pending: Pending) -> ControlBody:
        digests, error = pending.trial.result()
        if not error and self._view.stopping:
            error = f"the run is being stopped: {self._view.stopping}"
        if error:
            return _error(error)
        self._loaded, self.loaded = pending.trial.config, True
        if not pending.at_end:
            self._stop(LOADED)
        return ControlBody(what="loaded", data={"digests": digests})

    def _do(self, who: bytes, what: str, data: dict[str, Any]) -> ControlBody | None:
        asked = _checked(what, data)
        run_id = self._view.run_id
        if asked.run_id not in (None, run_id):
            raise PipelineError(f"run {run_id} is here, not the one that {what} is meant for")
        if isinstance(asked, Load):
            self._load(asked, who)
            return None
        if what == "stop":
            self.loaded = False
            self._stop("stopped by request")
            return ControlBody(what="stopping", data={"run_id": run_id})
        if what == "reset":
            if self._config.classifier is None:
                raise PipelineError("reset: the run has no [classifier], so nothing is tracked")
            self.resets += 1
            self._reset()
            return ControlBody(what="resetting", data={"run_id": run_id})
        told = status(self._view, self._clock()).model_dump(mode="json")
        return ControlBody(what="status", data=told)

    def _load(self, asked: Load, who: bytes) -> None:
        if self._pending is not None:
            raise PipelineError("load: another configuration is being tried; ask again")
        if not self._view.source or self._view.stopping:
            how = "is being stopped" if self._view.stopping else "has not begun"
            raise PipelineError(f"load: the run {how}")
        trial = Trial(changed(self._loaded, asked.files), self._ring)
        self._pending = Pending(trial, who, asked.at_end, self._clock() + PATIENCE_NS)

    def _answer(self, who: bytes, reply: ControlBody) -> None:
        self._link.offer(encode(reply), to=who)  # who asks must listen


def _error(text: str) -> ControlBody:
    return ControlBody(what="error", data={"text": text})


def changed(config: Config, files: dict[str, str]) -> Config:
    """Return `config` with `files` in place of its own.

    Raises
    ------
    PipelineError
        Nothing is named, or what is named has no table that it could be in.
    """
    if not files:
        raise PipelineError(f"load: name at least one of model, {', '.join(IMAGES)}")
    images = {key: files[key] for key in IMAGES if key in files}
    update: dict[str, Any] = {}
    if "model" in files:
        if config.classifier is None:
            raise PipelineError("load: model: the run has no [classifier]")
        update["classifier"] = config.classifier.model_copy(update={"model": Path(files["model"])})
    if images:
        if config.calibration is None:
            raise PipelineError(f"load: {', '.join(images)}: the run has no [calibration]")
        keys = config.calibration.model_dump() | images
        update["calibration"] = CalibrationConfig(**keys)
    return config.model_copy(update=update)


def following(config: Config, control: str) -> Config:
    """Return `config` for the run after it: the same control socket, files with other names."""
    sinks, taken = [], set[Path]()
    for sink in config.sink:
        options = sink.options
        if isinstance(path := options.get("path"), str):
            taken.add(other := next_path(Path(path), taken))
            options = {**options, "path": str(other)}
        sinks.append(SinkConfig(type=sink.type, policy=sink.policy, **options))
    runtime = config.runtime.model_copy(update={"control": control})
    return config.model_copy(update={"sink": tuple(sinks), "runtime": runtime})


def next_path(path: Path, taken: Collection[Path] = ()) -> Path:
    """Return the first of ``NAME.2.EXT``, ``NAME.3.EXT``, ... after `path` that is free.

    It does not exist and is not in `taken`. One that cannot be looked at is free: who writes it
    says what is wrong.
    """
    name, dot, number = path.stem.rpartition(".")
    if not (dot and number.isdecimal() and len(number) < 6):
        name, number = path.stem, "1"
    n = int(number) + 1
    while (other := path.with_name(f"{name}.{n}{path.suffix}")) in taken or exists(other):
        n += 1
    return other


def _checked(what: str, data: dict[str, Any]) -> Asked:
    if what not in COMMANDS:
        raise PipelineError(f"no command {what!r}; there are: {', '.join(COMMANDS)}")
    try:
        return COMMANDS[what].model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PipelineError(f"{what}: {where:.64}: {first['msg']}") from None
