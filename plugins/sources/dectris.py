"""``dectris:tcp://HOST:PORT``: the images of one series of a DECTRIS detector, Stream V1 or V2.

Which of the two comes is seen from the messages. Images are decompressed from where ZeroMQ received
them straight into the memory that the receiver lends.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.blobs import joined
from phasewatch.plugins.sources.dectris_v1 import V1
from phasewatch.plugins.sources.dectris_v2 import V2
from phasewatch.plugins.sources.found import Found
from phasewatch.plugins.sources.seen import seen
from phasewatch.plugins.sources.socket_feed import Parts, SocketFeed, addresses_of
from phasewatch.plugins.sources.stream import Stream

PRIMARY = {"9999": "V1", "31001": "V2"}  # ports of the detector's own PUSH sockets
MAPS = range(0xA0, 0xC0)  # first bytes of a CBOR map that does not say that it is CBOR


def open_source(
    target: str,
    *,
    socket: Literal["pull", "sub"] = "pull",
    channel: str | None = None,
    join: bool = False,
    sole_consumer: bool = False,
    idle_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
) -> Stream:
    """Take a series from what sends at `target`.

    Parameters
    ----------
    target
        ``tcp://HOST:PORT`` or ``ipc://PATH``.
    socket
        ``pull`` (every image comes once, to one of those who ask), or ``sub`` from a relay.
    channel
        Which of several is taken (V2: ``threshold_1``, ...); not needed where there is one.
    join
        Begin in mid-series too, with the images that still come: without the detector's pixel mask,
        number of images, wavelength and saturation. Otherwise the next series is waited for.
    sole_consumer
        Nobody else is connected to the detector's own port, so that no image is taken from them.
    idle_timeout_s
        End the run when nothing came for so long, an error where none began; None waits for ever.
    """
    address, *more = addresses_of(target, "dectris")
    if more:
        raise PipelineError(f"dectris:{target}: one address is expected")
    port = address.rpartition(":")[2]
    if socket == "pull" and address.startswith("tcp:") and port in PRIMARY and not sole_consumer:
        raise PipelineError(
            f"dectris:{address}: the port of a detector's own Stream {PRIMARY[port]}, which "
            "deals its images out among all who connect, so that others miss ours; "
            "connect to a relay, or set [source] sole_consumer = true if there are no others"
        )
    return Stream(
        "dectris",
        SocketFeed([address], socket),
        Decoder(channel),
        idle_timeout_s=idle_timeout_s,
        join=joined if join else None,
    )


class Decoder:
    """Tells V1 from V2, message by message."""

    def __init__(self, channel: str | None = None) -> None:
        self._v1, self._v2 = V1(), V2(channel)

    def resume(self, run: RunStart) -> None:
        """Go on with `run`."""
        self._v2.resume()

    def __call__(self, message: tuple[int, Parts]) -> Iterable[Found]:
        """Say what is in `message`."""
        _, parts = message
        first = parts[0][:3].tobytes()
        if first[:1] == b"{":
            return self._v1(parts)
        if len(parts) == 1 and (first == b"\xd9\xd9\xf7" or (first and first[0] in MAPS)):
            return self._v2(parts[0])
        raise MessageError(f"neither DECTRIS Stream V1 nor V2: {seen(parts)}")
