"""DECTRIS Stream V2: each message one CBOR map, of ``type`` start, image or end.

Arrays are tag 40 of [[height, width], numbers]; numbers are a typed array (RFC 8746) of a byte
string, or of tag 56500, [algorithm, element size, bytes]. ``saturation_value`` is the highest count
that is valid, and the highest of the type, NODATA, never is. An image began at ``series_date`` plus
``start_time``, [numerator, denominator] in seconds. (dectris/documentation: stream_v2/README.md,
cbor/dectris-compression-tag.md.)
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins import cbor
from phasewatch.plugins.sources.blobs import Blob, Codec, dtype_of, mask_of, saturation
from phasewatch.plugins.sources.found import Began, Ended, Found, Frame, Lost
from phasewatch.plugins.sources.headers import Count, Header, Text, checked

ARRAY, COMPRESSED = 40, 56500
_TYPED = {
    **{64: "u1", 68: "u1", 72: "i1"},
    **{65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8"},
    **{73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8"},
    **{81: ">f4", 82: ">f8", 85: "<f4", 86: "<f8"},
}
_CODECS: dict[str, Codec] = {"bslz4": "bslz4", "lz4": "lz4"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Series(Header):
    series_id: Count
    series_unique_id: Text = ""

    @property
    def name(self) -> str:
        return f"{self.series_id} {self.series_unique_id}".rstrip()


class _Start(_Series):
    image_size_x: Count
    image_size_y: Count
    image_dtype: Text | None = None
    channels: list[Text] | None = None
    number_of_images: Count | None = None
    incident_wavelength: float | None = None
    saturation_value: Count | None = None
    pixel_mask: dict[str, Any] | None = None


class _Image(_Series):
    image_id: Count
    data: dict[str, Any]
    series_date: Any = None
    start_time: Any = None


class V2:
    """Decoder of messages (bytes) that takes the images of `channel`, or of the only one."""

    def __init__(self, channel: str | None = None) -> None:
        self._wanted = self._channel = channel
        self._due: _Start | None = None
        self._begun = False

    def resume(self) -> None:
        """Go on with a run that began in another process."""
        self._begun = True

    def __call__(self, message: memoryview) -> Iterator[Found]:
        """Say what is in `message`."""
        fields = cbor.loads(message)
        kind = fields.get("type") if isinstance(fields, dict) else None
        if kind == "start":
            yield from self._start(checked(_Start, fields))
        elif kind == "image":
            yield from self._image(checked(_Image, fields))
        elif kind == "end":
            yield Ended(checked(_Series, fields).name)
        else:
            raise MessageError(f"CBOR of type {kind!r:.40}, not start, image or end")

    def _start(self, start: _Start) -> Iterator[Found]:
        self._channel = self._choose(start.channels or [])
        if start.image_dtype is None:  # of older releases: what images are like, the first says
            self._due = start
            return
        self._due = None
        yield self._began(start, dtype_of(start.image_dtype))

    def _image(self, image: _Image) -> Iterator[Found]:
        try:
            blob = _blob(self._data(image))
            t_acq = _time(image.series_date, image.start_time)
        except PipelineError as error:
            yield Lost(image.image_id, str(error), image.name)
            return
        if self._due is not None and self._due.name == image.name:
            start, self._due = self._due, None
            yield self._began(start, blob.dtype)
        yield Frame(image.image_id, blob.item, blob.write, t_acq, image.name)

    def _began(self, start: _Start, dtype: np.dtype[Any]) -> Began:
        shape = start.image_size_y, start.image_size_x
        item = ItemSpec.of(shape, dtype.newbyteorder("="))
        facts: dict[str, Any] = {"saturation": saturation(dtype, start.saturation_value)}
        if start.number_of_images is not None:
            facts["expected"] = start.number_of_images
        if start.incident_wavelength:
            facts["wavelength_m"] = start.incident_wavelength * 1e-10
        bits = (start.pixel_mask or {}).get(self._channel or "")
        if bits is not None:
            blob = _blob(bits)
            if blob.shape != shape:
                raise MessageError(f"start of series {start.name}: pixel mask of {blob.shape}")
            facts["constants"] = {"mask": mask_of(blob)}
        self._begun = True
        return Began(item, start.name, timed=None, facts=facts)

    def _choose(self, channels: Sequence[str]) -> str | None:
        """Return which of `channels` is taken, None where it cannot be told yet."""
        if self._wanted in channels or not channels:
            return self._wanted
        if self._wanted is None and len(channels) == 1:
            return channels[0]
        refused = MessageError if self._begun else PipelineError  # a run that goes on, goes on
        raise refused(
            f"[source] channel = {self._wanted or ''!r:.40} does not name one of the detector's: "
            f"{', '.join(channels)[:200]}"
        )

    def _data(self, image: _Image) -> Any:
        """Return the array of our channel."""
        name = self._channel
        if name is None and len(image.data) == 1:
            (name,) = image.data
        if name not in image.data:
            raise MessageError(
                f"no channel {name or 'is named in [source] channel'}; "
                f"there are {', '.join(image.data)[:200] or 'none'}"
            )
        return image.data[name]


def _blob(item: Any) -> Blob:
    """Return the image that `item`, tag 40, is."""
    match item:
        case cbor.Tag(number=number, value=[[int(height), int(width)], cbor.Tag() as typed]):
            if number != ARRAY:
                raise MessageError(f"an array of CBOR tag {number}, not {ARRAY} (row-major)")
        case _:
            raise MessageError("an array that is not CBOR tag 40 of [[height, width], numbers]")
    kind = _TYPED.get(typed.number)
    if kind is None:
        raise MessageError(f"numbers of CBOR tag {typed.number}, which is no typed array we take")
    dtype, shape = np.dtype(kind), (height, width)
    match typed.value:
        case memoryview() as data:
            return Blob(data, shape, dtype)
        case cbor.Tag(number=number, value=[str(codec), size, memoryview() as data]):
            if number == COMPRESSED and codec in _CODECS:
                if codec == "bslz4" and size != dtype.itemsize:
                    raise MessageError(f"bslz4 of elements of {size!r:.10} bytes, but of {dtype}")
                return Blob(data, shape, dtype, _CODECS[codec])
            raise MessageError(f"compression {codec!r:.40} is not one of {', '.join(_CODECS)}")
    raise MessageError("numbers that are neither a byte string nor compressed")


def _time(date: Any, start: Any) -> int | None:
    """Return ns UTC of `start` seconds, [numerator, denominator], after `date`; None: not said."""
    if date is None or start is None:
        return None
    match date, start:
        case cbor.Tag(number=0, value=str(text)), [int(above), int(below)] if below > 0:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                raise MessageError(f"series_date {text!r:.40} is no date") from None
            if moment.tzinfo is None:
                return None
            return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + above * 10**9 // below
    raise MessageError("series_date and start_time are no date and [numerator, denominator]")
