"""``json:tcp://HOST:PORT``: images that come as JSON and blobs, in one of two protocols.

``array-1.0`` (areaDetector, PSI) has no end; ``header``, ``image``, ``series_end`` (MAX IV, STINS)
has. Which of them comes is seen from the messages. ``json:tcp://A:9010,tcp://B:9011``: the modules
of one detector, each on a socket of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.array_stream import ArrayStream
from phasewatch.plugins.sources.blobs import joined
from phasewatch.plugins.sources.found import Found
from phasewatch.plugins.sources.headers import Kind, read
from phasewatch.plugins.sources.seen import seen
from phasewatch.plugins.sources.socket_feed import Parts, SocketFeed, addresses_of
from phasewatch.plugins.sources.stins import Stins
from phasewatch.plugins.sources.stream import Stream

STINS = ("header", "image", "series_end")


def open_source(
    target: str,
    *,
    socket: Literal["pull", "sub"] = "pull",
    bind: bool = False,
    join: bool = False,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
) -> Stream:
    """Take a run from what sends at `target`.

    Parameters
    ----------
    target
        ``tcp://HOST:PORT`` or ``ipc://PATH``; several, separated by commas: one a module.
    socket
        ``pull`` (every image comes once, the sender waits) or ``sub`` (a copy; the slow lose some).
    bind
        Bind instead of connecting, for a sender that connects; loopback and ipc only.
    join
        Begin in mid-series too. Otherwise the next header is waited for (``array-1.0`` has none).
    idle_timeout_s
        End the run when nothing came for so long, which is the only end of ``array-1.0``; an error
        where no run began. None waits for ever.
    """
    addresses = addresses_of(target, "json")
    if join and len(addresses) > 1:
        raise PipelineError("[source] join: only the header says where each module sits")
    return Stream(
        "json",
        SocketFeed(addresses, socket, bind=bind),
        Decoder(addresses),
        idle_timeout_s=idle_timeout_s,
        join=joined if join else None,
    )


class Decoder:
    """Tells the two protocols apart, message by message."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._arrays = ArrayStream() if len(addresses) == 1 else None
        self._stins = Stins(addresses)

    def __call__(self, message: tuple[int, Parts]) -> Iterable[Found]:
        """Say what is in `message`."""
        _, parts = message
        if parts[0][:1].tobytes() != b"{":
            raise MessageError(f"no JSON and blob: {seen(parts)}")
        kind = read(Kind, parts[0]).htype
        if kind in STINS:
            return self._stins(message)
        if kind in ("array-1.0", ["array-1.0"]) and self._arrays is not None:
            return self._arrays(parts)
        raise MessageError(f"not array-1.0, header, image or series_end: {seen(parts)}")

    def rest(self) -> Iterator[Found]:
        """Give up what is not whole."""
        return self._stins.rest()

    def resume(self, run: RunStart) -> None:
        """Go on with `run`."""
        self._stins.resume(run)
