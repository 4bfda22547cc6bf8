"""What a plug-in has to offer, and how it is found.

A source is opened by a function ``open_source(target, **options) -> Source``, registered under the
entry-point group ``phasewatch.sources`` with the scheme of its URI as name; ``options`` are the
further keys of the ``[source]`` table, so its signature says which keys exist. A sink likewise:
``open_sink(**options) -> Sink`` under ``phasewatch.sinks``, options being the keys of ``[[sink]]``.
An observer likewise: ``open_observer(**options) -> Observer`` under ``phasewatch.observers``, with
the name of its table, ``[metrics]``, and that table's keys as options.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from inspect import Parameter, signature
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Status


class Source(Protocol):
    """Gives the items of one run, in the order in which they came.

    ``start`` is called once, first. Iterating then yields `Batch` (``seq`` contiguous from 0 over
    all that is yielded, failures included), `Failure` for an item that exists but cannot be read,
    or None for "nothing yet" (at least every 0.1 s, so that a run can be stopped). It ends when the
    run ends. ``close`` may be called at any time after ``start``, and twice. Errors in reading one
    item are Failures; only what makes the rest unreadable is raised, as an error of one line.

    Three more methods may be there:

    ``resume(run, n)`` is called in place of ``start``, in a new process, when the one that took the
    first `n` items of `run` (in the order of this source, failures included; `run` as ``start``
    gave it) has died: iterating then begins after them, with ``seq`` = `n`. Raises PipelineError
    where that cannot be, because the files are others by now. Without it the source is started
    again, and is expected to give what comes from now on.

    ``lend(allocate)`` is called once, after ``start`` or ``resume`` and before iterating.
    ``allocate(n)``, called while iterating, gives writable arrays (m, ...) by the names of the
    items of the run, 1 <= m <= n: memory that is not copied any more, with old contents; or None,
    then the source uses its own. The next that is yielded is a `Batch` of the first items of just
    these arrays, and what is not in it is taken back; so there is one ``allocate`` to a batch. It
    may wait until there is room.

    ``pack(wanted)`` is called once, after ``start`` or ``resume`` and before iterating; it says how
    the chunks are made that the source decodes, or None where it has none that are of one frame, or
    tile of it, each. While ``wanted()`` is true, batches bring their chunks along (``packed``), as
    far as that is cheap: workers of other hosts are sent these.

    ``replays``, where it is there and false, says that ``resume`` goes on with what comes from now
    on, not with the very items that follow.
    """

    def start(self) -> RunStart:
        """Say what is to come."""

    def __iter__(self) -> Iterator[Batch | Failure | None]: ...
    def close(self) -> None:
        """Let go of files and sockets."""


class Sink(Protocol):
    """Takes the documents of one run: items in order of ``seq``, failures as they are known.

    ``close`` may be called at any time, and twice; what was taken by then stays readable.
    """

    def start(self, run: RunStart) -> None:
        """Begin a run."""

    def batch(self, batch: Batch) -> None:
        """Take items that reached the end of the chain."""

    def failures(self, failures: Sequence[Failure]) -> None:
        """Take items that did not."""

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None:
        """Take the (seq, id) of items that the receiver dropped."""

    def event(self, event: Event) -> None:
        """Take what happened to the sample."""

    def stop(self, stop: RunStop) -> None:
        """Take the end of the run."""

    def close(self) -> None:
        """Let go of files and sockets."""


class Observer(Protocol):
    """Is told once a second how a run is; lives in the supervisor, so it must not wait."""

    def update(self, status: Status) -> None:
        """Take the status of the run."""

    def close(self) -> None:
        """Let go of files and sockets."""


def found(group: str) -> dict[str, Any]:
    """Return the entry points of ``phasewatch.<group>`` by name, sorted.

    Raises
    ------
    PipelineError
        Two installed distributions offer the same name.
    """
    by_name: dict[str, Any] = {}
    for point in sorted(entry_points(group=f"phasewatch.{group}"), key=lambda p: p.name):
        if point.name in by_name and by_name[point.name].value != point.value:
            raise PipelineError(
                f"plug-in {point.name!r} of phasewatch.{group} is offered twice: "
                f"{by_name[point.name].value} and {point.value}"
            )
        by_name[point.name] = point
    return by_name


def load(group: str, name: str) -> Callable[..., Any]:
    """Return what the plug-in `name` of ``phasewatch.<group>`` registered."""
    points = found(group)
    if name not in points:
        raise PipelineError(f"{group[:-1]} {name!r} is not known; there are: {', '.join(points)}")
    loaded: Callable[..., Any] = points[name].load()
    return loaded


def open_source(uri: str, **options: Any) -> Source:
    """Open the source that the scheme of `uri` names, e.g. ``lambda-nexus:/data/run42``."""
    scheme, colon, target = uri.partition(":")
    if not colon or not target:
        raise PipelineError(
            f"source {uri!r} is not SCHEME:TARGET; schemes: {', '.join(found('sources'))}"
        )
    opener = load("sources", scheme)
    source: Source = opener(target, **_checked(opener, options, f"[source] {scheme}:"))
    return source


def open_sink(kind: str, **options: Any) -> Sink:
    """Open the sink of type `kind`, e.g. ``nexus``."""
    opener = load("sinks", kind)
    sink: Sink = opener(**_checked(opener, options, f"[[sink]] {kind}:"))
    return sink


def open_observer(name: str, **options: Any) -> Observer:
    """Open the observer whose table is ``[name]``, e.g. ``metrics``."""
    opener = load("observers", name)
    observer: Observer = opener(**_checked(opener, options, f"[{name}]"))
    return observer


def keys_of(opener: Callable[..., Any]) -> list[str]:
    """Return the keys that `opener` takes, as ``name`` or ``name = default``."""
    return [
        p.name if p.default in (Parameter.empty, None) else f"{p.name} = {p.default!r}"
        for p in signature(opener).parameters.values()
        if p.kind == p.KEYWORD_ONLY
    ]


def _checked(opener: Callable[..., Any], options: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `options` as the annotations of `opener` say, or raise one line that names the key."""
    parameters = [p for p in signature(opener).parameters.values() if p.kind == p.KEYWORD_ONLY]
    known = [p.name for p in parameters]
    types = get_type_hints(opener, include_extras=True)
    for name in options:
        if name not in known:
            raise PipelineError(
                f"{where} unknown key {name!r}; known: {', '.join(known) or 'none'}"
            )
    for p in parameters:
        if p.default is Parameter.empty and p.name not in options:
            raise PipelineError(f"{where} key {p.name!r} is missing")
    checked = {}
    for name, value in options.items():
        try:
            checked[name] = TypeAdapter(types.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise PipelineError(f"{where} key {name!r}: {error.errors()[0]['msg']}") from None
    return checked
