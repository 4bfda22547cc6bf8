"""``karabo-bridge:tcp://HOST:PORT``: the images that one detector sends over a Karabo bridge.

The source and its key say which; several modules that are sources of their own are one detector
where `name` has a ``*`` in place of their numbers. A train in which the detector has nothing is a
gap in the ids; one whose images cannot be had is as many Failures. There is no end of a run on the
wire: it is over when nothing came for `idle_timeout_s`, or when it is stopped.

Ids: `phasewatch.plugins.sources.trains`. Times: ``timestamp.sec`` and ``.frac`` of the metadata,
none where they are not there. A server that makes up times (``--dummy-timestamps``) cannot be told
from one that knows them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from numpy.typing import NDArray
from pydantic import Field

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.bridge_wire import Block, Sourced, decode
from phasewatch.plugins.sources.axes import (
    MAX_PULSES,
    check_axes,
    frame_of,
    ordered,
    told_by,
    write_frame,
)
from phasewatch.plugins.sources.bridge_feed import BridgeFeed, Kind
from phasewatch.plugins.sources.names import listed, matching
from phasewatch.plugins.sources.stream import Began, Found, Frame, Lost, Stream
from phasewatch.plugins.sources.trains import pulse_id, time_of

PATIENCE = 10  # trains in which the detector may be missing before the run is given up


def open_source(
    target: str,
    *,
    type: Kind = "REQ",
    name: str | None = None,
    key: str = "image.data",
    axes: str | None = None,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
) -> Stream:
    """Take the images of a detector from the server at `target`.

    Parameters
    ----------
    target
        ``tcp://HOST:PORT`` or ``ipc://PATH``.
    type
        ``REQ`` to a server's REP (the newest train when we are ready), ``PULL`` to a PUSH (every
        train, the server waits), ``SUB`` to a PUB (a copy; the slow lose trains, without a word).
    name
        The source, or several as one, ``*`` standing for the number of the module; may be left out
        where just one source has the key.
    key
        Which of its keys has the images.
    axes
        What the axes of the images of a train are, a letter for each (see
        `phasewatch.plugins.sources.axes`); may be left out for a single frame (rows, columns).
    idle_timeout_s
        End the run when nothing came for so long; None waits for ever, for the first train too.
    """
    if not target.startswith(("tcp://", "ipc://")):
        raise PipelineError(f"karabo-bridge:{target}: not tcp://HOST:PORT or ipc://PATH")
    check_axes(axes)
    feed = BridgeFeed(target, type)
    return Stream("karabo-bridge", feed, Trains(name, key, axes), idle_timeout_s=idle_timeout_s)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The images of one train.

    Attributes
    ----------
    views
        Of each module source (pulses, modules, rows, columns).
    """

    train: int
    t_acq: int | None
    views: Sequence[NDArray[Any]]

    def __len__(self) -> int:
        return len(self.views[0])


class Trains:
    """Decoder of the trains of one detector."""

    def __init__(self, name: str | None, key: str, axes: str | None) -> None:
        self._name, self._key, self._axes = name, key, axes
        self._names: tuple[str, ...] = ()  # of the run
        self._per_train = 0
        self._seen: set[str] = set()
        self._tries = 0

    def __call__(self, message: Sequence[memoryview]) -> Iterator[Found]:
        """Say which frames are in a train; with the first one the run begins."""
        train = decode(message)
        if not self._names:
            yield self._begin(train)
        yield from self._frames(train)

    def resume(self, run: RunStart) -> None:
        """Go on with the detector and the numbers of `run`."""
        said = run.settings["bridge"]
        self._names, self._per_train = tuple(said["sources"]), int(said["pulses_per_train"])

    def _begin(self, train: dict[str, Sourced]) -> Began:
        try:
            names = self._chosen(train)
            images = self._images([train[name] for name in names])
            if images is None or not len(images):
                raise MessageError(f"train {_train_of(train[names[0]])} has no pulses")
            settings = {"sources": list(names), "pulses_per_train": len(images)}
            timed = images.t_acq is not None
            began = Began(frame_of(images.views), timed=timed, settings={"bridge": settings})
        except MessageError as error:
            self._tries += 1
            if self._tries < PATIENCE:
                raise
            raise PipelineError(f"in none of {self._tries} trains an image: {error}") from None
        self._names, self._per_train = tuple(names), len(images)
        return began

    def _chosen(self, train: dict[str, Sourced]) -> list[str]:
        """Return the sources of the detector."""
        self._seen |= train.keys()
        if self._name is None:
            names = [n for n, sourced in train.items() if _is_image(sourced.values.get(self._key))]
            if len(names) != 1:
                said = listed(names) if names else f"none of {listed(self._seen)}"
                raise MessageError(f'[source] name: key "{self._key}" has images in {said}')
            return names
        names = matching(self._name, train)
        if not names:
            raise MessageError(f'[source] name: no source "{self._name}"; {listed(self._seen)}')
        for name in names:
            if self._key not in train[name].values:
                images = [str(k) for k, v in train[name].values.items() if _is_image(v)]
                raise MessageError(
                    f'[source] key: source {name} has no "{self._key}"; images: {listed(images)}'
                )
        return names

    def _frames(self, train: dict[str, Sourced]) -> Iterator[Found]:
        there = [train[name] for name in self._names if name in train]
        if not any(self._key in sourced.values for sourced in there):
            return  # the detector skipped it: a gap in the ids
        number = _train_of(there[0])
        first = pulse_id(number, 0, self._per_train)
        ids = range(first, first + self._per_train)
        try:
            if len(there) < len(self._names):
                missing = sorted(set(self._names) - train.keys())
                raise MessageError(f"train {number}: modules are missing: {listed(missing)}")
            images = self._images(there)
            if images is None:
                return
            spec = frame_of(images.views)
        except MessageError as error:
            yield from _lost(ids, str(error))
            return
        for pulse, id_ in zip(range(len(images)), ids, strict=False):

            def write(out: NDArray[Any], pulse: int = pulse) -> None:
                write_frame(images.views, pulse, out)

            yield Frame(id_, spec, write, images.t_acq)
        if len(images) > len(ids):
            many = f"train {number} has {len(images)} pulses, the run began with {len(ids)}"
            yield from _lost([ids[-1]] * (len(images) - len(ids)), many)

    def _images(self, sources: Sequence[Sourced]) -> Images | None:
        """Return the images that `sources` have in a train; None where there are no pulses."""
        if len({_train_of(sourced) for sourced in sources}) != 1:
            raise MessageError(f"modules of different trains in one message: {self._name}")
        views = []
        for sourced in sources:
            block = sourced.values.get(self._key)
            if not isinstance(block, Block):
                raise MessageError(f'[source] key: "{self._key}" is not an image')
            array = block.array(self._key)
            views.append(ordered(array, told_by(array.shape, self._axes, self._key)))
        counts = {len(view) for view in views}
        if len(counts) != 1 or max(counts) > MAX_PULSES:
            raise MessageError(f"pulses of the modules: {listed(map(str, sorted(counts)))}")
        if counts == {0}:
            return None
        return Images(_train_of(sources[0]), time_of(sources[0].metadata), views)


def _train_of(sourced: Sourced) -> int:
    number = sourced.metadata.get("timestamp.tid")
    if type(number) is not int:
        raise MessageError(f"metadata without a train id, timestamp.tid: {number!r:.40}")
    return number


def _is_image(value: Any) -> bool:
    return isinstance(value, Block) and isinstance(value.shape, list) and len(value.shape) > 1


def _lost(ids: Iterable[int], error: str) -> Iterator[Lost]:
    for id_ in ids:
        yield Lost(id_, error)
