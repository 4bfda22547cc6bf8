"""``array-1.0``: each message a JSON header and a blob; there is no start and no end.

``shape`` is [height, width]. NDPluginZMQ of areaDetector before ADZMQ 1.4 wrote [width, height],
and ``htype`` as a list, by which it is known. ``endianness``, which examples spell ``endianess``,
is little unless it says big; ``encoding`` is areaDetector's name of a codec. Its ``timeStamp``
counts from an epoch that every driver chooses, so there are no times. (paulscherrerinstitute/htypes
and ADZMQ, RELEASE.md.)
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.blobs import Blob, Codec, dtype_of, saturation
from phasewatch.plugins.sources.found import Began, Found, Frame, Lost
from phasewatch.plugins.sources.headers import Count, Header, Text, read

_CODECS: dict[str, Codec] = {"": "raw", "none": "raw", "lz4": "lz4", "bslz4": "bslz4"}


class _Frame(Header):
    frame: Count


class _Array(_Frame):
    htype: Any
    shape: Annotated[list[Count], Field(min_length=2, max_length=2)]
    type: Text
    endianness: Literal["little", "big"] | None = None
    endianess: Literal["little", "big"] | None = None
    encoding: Text | None = None


class ArrayStream:
    """Decoder of messages (parts); the first good image begins the run."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, parts: Sequence[memoryview]) -> Iterator[Found]:
        """Say what is in `parts`."""
        number = read(_Frame, parts[0]).frame
        try:
            if len(parts) != 2:
                raise MessageError(f"an array of {len(parts)} parts, not of a header and a blob")
            blob = _blob(read(_Array, parts[0]), parts[1])
        except PipelineError as error:
            yield Lost(number, str(error))
            return
        if not self._begun:
            self._begun = True
            yield Began(blob.item, facts={"saturation": saturation(blob.dtype)})
        yield Frame(number, blob.item, blob.write)


def _blob(header: _Array, data: memoryview) -> Blob:
    first, second = header.shape
    shape = (second, first) if isinstance(header.htype, list) else (first, second)
    codec = _CODECS.get((header.encoding or "").lower())
    if codec is None:
        raise MessageError(f"encoding {header.encoding!r} is not one of none, lz4, bslz4")
    big = "big" in (header.endianness, header.endianess)
    return Blob(data, shape, dtype_of(header.type).newbyteorder(">" if big else "<"), codec)
