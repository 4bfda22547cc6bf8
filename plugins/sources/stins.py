"""The JSON and blob stream of MAX IV (STINS): ``header``, ``image`` and ``series_end`` messages.

Each has ``msg_number``, which runs on over series. A detector of several modules sends each on a
socket of its own; their headers say in a second part where the module sits, and messages of one
number belong together (`ModuleSets`). (maxiv-science/streaming-receiver: README.md,
receiver/detector.py.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.blobs import saturation
from phasewatch.plugins.sources.found import Began, Ended, Found, Frame, Lost
from phasewatch.plugins.sources.headers import Count, Header, read
from phasewatch.plugins.sources.module_sets import MessageSet, ModuleSets
from phasewatch.plugins.sources.stins_images import Modules, image_blob


class _Message(Header):
    htype: Literal["header", "image", "series_end"]
    msg_number: Count
    frame: Count | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    head: _Message
    parts: Sequence[memoryview]


_Set = MessageSet[_Received]


class Stins:
    """Decoder of messages (socket, parts) from the sockets `addresses`, one a module."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._names = [f"module {k} ({address})" for k, address in enumerate(addresses, 1)]
        self._sets: ModuleSets[_Received] = ModuleSets(len(addresses))
        self._series = ""
        self._begun = False
        self._modules: Modules | None = None

    def __call__(self, message: tuple[int, Sequence[memoryview]]) -> Iterator[Found]:
        """Say what is in `message`."""
        module, parts = message
        head = read(_Message, parts[0])
        errors = []
        for found in self._sets.add(module, head.msg_number, _Received(head, parts)):
            try:
                yield from self._take(found)
            except MessageError as error:  # one may be given up, and another whole
                errors.append(error)
        if errors:
            raise errors[0]

    def rest(self) -> Iterator[Found]:
        """Give up what is not whole."""
        for found in self._sets.flush():
            yield from self._lost(found, self._absent(found))

    def resume(self, run: RunStart) -> None:
        """Go on with `run`."""
        self._begun = True
        if len(self._names) > 1:
            self._modules = Modules.of(run.settings.get("modules"), self._names)

    def _take(self, found: _Set) -> Iterator[Found]:
        received = list(found.parts.values())
        kind, problem = received[0].head.htype, self._absent(found) or self._unlike(found)
        if kind == "image":
            parts = [found.parts[k].parts for k in sorted(found.parts)]
            if problem:
                yield from self._lost(found, problem)
            else:
                yield from self._image(received[0].head.frame, parts)
            return
        for older in self._sets.flush(before=found):  # in no socket can they come any more
            yield from self._lost(older, self._absent(older))
        series, begun = self._series, self._begun
        self._series, self._begun, self._modules = "", False, None
        if begun:
            yield Ended()
        if problem:
            raise MessageError(problem)
        if kind == "series_end":
            if not begun:
                raise MessageError(f"the series of header {series or '?'} ended without an image")
            return
        if len(self._names) > 1:
            headers = [found.parts[k].parts for k in sorted(found.parts)]
            self._modules = Modules.read(headers, self._names)
        self._series = str(found.number)

    def _image(self, number: int | None, parts: Sequence[Sequence[memoryview]]) -> Iterator[Found]:
        if number is None:
            raise MessageError("an image without a frame number")
        if self._modules is None and len(parts) > 1:
            raise MessageError(f"image {number} of modules whose header was not seen")
        facts, settings = dict[str, Any](), dict[str, Any]()
        write: Callable[[NDArray[Any]], None]
        try:
            if self._modules is None:
                blob = image_blob(parts[0])
                item, write = blob.item, blob.write
            else:
                blob, item, write = self._modules.frame(parts)
                facts["constants"] = {"mask": self._modules.mask}
                settings["modules"] = self._modules.settings
        except PipelineError as error:
            yield Lost(number, str(error))
            return
        if not self._begun:
            facts["saturation"] = saturation(blob.dtype)
            began = Began(item, self._series, facts=facts, settings=settings)
            self._begun = True
            if self._series:  # else its header was not seen
                yield began
        yield Frame(number, item, write)

    def _absent(self, found: _Set) -> str:
        """Return which modules did not send a message of this set, "" if all did."""
        absent = [name for k, name in enumerate(self._names) if k not in found.parts]
        return f"message {found.number}: not sent by {', '.join(absent)}" if absent else ""

    def _unlike(self, found: _Set) -> str:
        """Return how the messages of this set differ, "" if they do not."""
        said = {}
        for k, received in found.parts.items():
            head = received.head
            frame = f" {head.frame}" if head.htype == "image" else ""
            said[f"{head.htype}{frame}"] = self._names[k]
        if len(said) == 1:
            return ""
        return f"message {found.number}: " + ", ".join(f"{n} sent {s}" for s, n in said.items())

    def _lost(self, found: _Set, problem: str) -> Iterator[Found]:
        for received in found.parts.values():
            if received.head.frame is not None:
                yield Lost(received.head.frame, problem)
                return
