"""The configuration of a run: TOML, checked key by key.

A wrong key is refused, what is left out has the default given here. Relative paths are relative to
the configuration file.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from phasewatch.pipeline.documents import Unit
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.hints import meant, near
from phasewatch.pipeline.plugin import found


class Section(BaseModel):
    """Base of all tables: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(Section):
    """``[source]``: where items come from; further keys are the source's own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    uri: str

    @property
    def options(self) -> dict[str, Any]:
        """The source's own keys."""
        return dict(self.model_extra or {})


class CalibrationConfig(Section):
    """``[calibration]``: what `Calibration.load` takes; images are paths, ``FILE.h5#/path`` too."""

    poni: str
    shape: tuple[int, int] | None = None
    mask: str | None = None
    mask_inverted: bool | None = None
    pixel_mask: str | None = None
    pixel_mask_bits: Annotated[int, Field(ge=0, lt=1 << 32)] = 0x7FFFFFFF
    dark: str | None = None
    flat: str | None = None
    saturation: float | None = None
    wavelength: float | None = None


class BaselineConfig(BaseModel):
    """``baseline = {method = "asls", ...}``: further keys are the method's own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    method: str = "asls"

    def settings(self) -> dict[str, Any]:
        """Return method and options; those of asls in full, since a card is compared with them."""
        thesis = {"lam": 1e5, "p": 0.002, "n_iter": 10} if self.method == "asls" else {}
        return {"method": self.method, **thesis, **(self.model_extra or {})}


class ReduceConfig(Section):
    """``[reduce]``: from counts to a clean pattern. `n_bins` is needed where frames come.

    `variance`: with each pattern goes the variance it has by the noise of its counts.
    `device`: ``cpu``: the reducer processes. ``cuda:N``: frames are reduced and classified there,
    by one process; this has not been run on a CUDA device yet. ``torch-cpu``: that process on a
    CPU, for tests. ``auto``: the first CUDA device, if there is one and it can do what is asked
    for, else ``cpu``.
    """

    n_bins: Annotated[int, Field(ge=1)] | None = None
    unit: Unit = "2th_deg"
    split: Literal["no", "bbox", "full"] = "no"
    range: tuple[float, float] | None = None
    polarization: Annotated[float, Field(ge=-1, le=1)] | None = None
    baseline: BaselineConfig = BaselineConfig()
    normalise: Literal["minmax", "area", "monitor", "none"] = "minmax"
    variance: bool = False
    device: Annotated[str, Field(pattern=r"^(cpu|torch-cpu|auto|cuda(:\d+)?)$")] = "cpu"

    @property
    def torch_device(self) -> str | None:
        """The name by which torch knows the device; None for the reducer processes."""
        return {"cpu": None, "torch-cpu": "cpu"}.get(self.device, self.device)


class ClassifierConfig(Section):
    """``[classifier]``: left out, the chain ends with patterns.

    At most `max_batch` patterns are classified at once. `max_wait_ms`: how long a GPU waits for
    them; a CPU takes what has come. `own_process`: false lets each reducer classify what it has
    reduced, which saves a hop where there are few cores, or many reducers for a slow network; a
    batch is then what the reducer got, and neither limit has a meaning.
    """

    model: Path
    device: str = "auto"
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 64
    max_wait_ms: Annotated[float, Field(ge=0, le=10_000)] = 2.0
    own_process: bool = True
    regrid: bool = False


class TrackConfig(Section):
    """``[track]``: probabilities per item of going on and of going back; what is unknown.

    `novelty`: a pattern above it is unknown. 1 is the edge of the training range; patterns of the
    twin's other runs stay below 1, frames of a detector without sample are above 2.
    """

    advance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    reversal: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    novelty: Annotated[float, Field(gt=0)] = 1.5


class RuntimeConfig(Section):
    """``[runtime]``: processes and their limits.

    `mode`: where the ring is full, ``lossless`` lets the source wait, ``live`` drops the oldest
    item that was not sent yet. `ring`: items held between the source and the end of the chain; left
    out, as many as fit 512 MiB, 16 to 1024. `credits`: orders of up to 8 frames or 64 patterns a
    reducer asks for ahead. `failures_in_a_row`: one more stops the run. `reorder_wait_s`: how long
    a missing item is waited for in live mode. `resend_s`: how long the receiver waits for an item
    before it sends it again. `restarts`: how often within a minute a process that died is started
    again. `control`: where ``phasewatch status`` asks; port 0 is a free one. `listen`: where
    workers of other hosts may join, ``tcp://HOST:PORT``; the two ports after it are used too.
    `keys`: the folder that ``phasewatch keys`` wrote, for all that is reached from other hosts.
    """

    mode: Literal["lossless", "live"] = "lossless"
    reducers: Annotated[int, Field(ge=1, le=256)] = 1
    ring: Annotated[int, Field(ge=2, le=65536)] | None = None
    credits: Annotated[int, Field(ge=1, le=64)] = 2
    failures_in_a_row: Annotated[int, Field(ge=1)] = 100
    reorder_wait_s: Annotated[float, Field(gt=0)] = 10.0
    resend_s: Annotated[float, Field(gt=0)] = 3.0
    restarts: Annotated[int, Field(ge=0)] = 5
    control: str = "tcp://127.0.0.1:0"
    listen: str | None = None
    keys: str | None = None

    @field_validator("listen")
    @classmethod
    def _three_ports(cls, listen: str | None) -> str | None:
        match = re.fullmatch(r"tcp://[^:/]+:(\d{1,5})", listen or "tcp://h:1")
        if match is None or not 0 < int(match[1]) <= 65533:
            raise ValueError(f"{listen} is not tcp://HOST:PORT with two more ports after it")
        return listen


class SinkConfig(Section):
    """``[[sink]]``: `type` names the plug-in; further keys are its own.

    `policy`: where the sink is slow, ``wait`` makes the run wait, ``queueDrop`` leaves out the
    oldest items that wait for it, ``drop`` the newest.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    policy: Literal["wait", "queueDrop", "drop"] = "wait"

    @property
    def options(self) -> dict[str, Any]:
        """The sink's own keys."""
        return dict(self.model_extra or {})


class Config(Section):
    """A whole configuration; further tables are those of observers, by their names."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]
    source: SourceConfig
    calibration: CalibrationConfig | None = None
    reduce: ReduceConfig = ReduceConfig()
    classifier: ClassifierConfig | None = None
    track: TrackConfig = TrackConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    sink: tuple[SinkConfig, ...] = ()

    @property
    def has_classifier(self) -> bool:
        """Whether there is a process that only classifies."""
        return self.classifier is not None and self.classifier.own_process

    @property
    def observers(self) -> dict[str, dict[str, Any]]:
        """The tables of observers, ``[metrics]`` and the like."""
        return dict(self.__pydantic_extra__)


def load_config(path: Path, *, source: str | None = None, out: Path | None = None) -> Config:
    """Read the configuration file `path`; `source` and `out` replace what it says.

    `source` replaces the whole table; paths in both are relative to the working directory.

    Raises
    ------
    PipelineError
        The file is not TOML, a key is unknown or a value is wrong: file, key and what is right.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not TOML: {error}") from None
    if source is not None:
        resolved = _resolve_source(SourceConfig(uri=source), Path.cwd())
        tables["source"] = {"uri": resolved.uri}
    if out is not None:
        sinks = tables.get("sink", [])
        if not isinstance(sinks, list):
            raise PipelineError(f"{path}: [sink]: write [[sink]], there may be several")
        others = [s for s in sinks if s.get("type") != "nexus"]
        tables["sink"] = [*others, {"type": "nexus", "path": str(out.absolute())}]
    return parse_config(tables, name=str(path), folder=path.absolute().parent)


def parse_config(tables: dict[str, Any], *, name: str, folder: Path) -> Config:
    """Check `tables`, the content of a configuration file called `name` that lies in `folder`."""
    known = Config.model_fields.keys() | found("observers").keys()
    for table in sorted(tables.keys() - known):
        raise PipelineError(f"{name}: [{table}]: no such key{near(table, known)}")
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = {"extra_forbidden": "no such key", "missing": "it is missing"}
        text = said.get(first["type"], first["msg"])
        if first["type"] == "extra_forbidden":
            text += meant(Config, str(first["loc"][0]), str(first["loc"][-1]))
        raise PipelineError(f"{name}: {_where(first['loc'])}: {text}") from None
    return _resolve(config, folder)


def _where(loc: tuple[int | str, ...]) -> str:
    table, *keys = [str(part) for part in loc]
    return f"[{table}] {'.'.join(keys)}".strip()


def _resolve(config: Config, folder: Path) -> Config:
    """Make relative paths absolute; a source resolves its own target with `folder`."""
    changes: dict[str, Any] = {"source": _resolve_source(config.source, folder)}
    if config.calibration is not None:
        changes["calibration"] = config.calibration.model_copy(
            update={
                key: str(folder / value)
                for key in ("poni", "mask", "pixel_mask", "dark", "flat")
                if (value := getattr(config.calibration, key)) is not None
            }
        )
    if config.runtime.keys is not None:
        keys = str(folder / config.runtime.keys)
        changes["runtime"] = config.runtime.model_copy(update={"keys": keys})
    if config.classifier is not None:
        model = folder / config.classifier.model
        changes["classifier"] = config.classifier.model_copy(update={"model": model})
    changes["sink"] = tuple(
        SinkConfig(type=s.type, policy=s.policy, **_absolute(s.options, folder))
        for s in config.sink
    )
    for table, options in config.observers.items():
        changes[table] = _absolute(options, folder)
    return config.model_copy(update=changes)


def _resolve_source(source: SourceConfig, folder: Path) -> SourceConfig:
    uri = source.uri
    scheme, colon, target = uri.partition(":")
    path, hash_, inside = target.partition("#")
    if colon and (folder / path).exists():
        uri = f"{scheme}:{folder / path}{hash_}{inside}"
    return SourceConfig(uri=uri, **_absolute(source.options, folder))


def _absolute(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a plug-in's keys with those absolute that are paths wherever they occur."""
    paths = {k: v for k, v in options.items() if k in ("path", "keys") and isinstance(v, str)}
    return {**options, **{k: str(folder / v) for k, v in paths.items()}}
