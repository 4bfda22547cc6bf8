"""DECTRIS Stream V1, the "legacy" format: multipart messages of JSON and blobs.

A header is ``dheader-1.0``, then with ``header_detail`` basic the configuration, with all also flat
field, pixel mask and count-rate table, each as JSON and blob; an image is ``dimage-1.0``,
``dimage_d-1.0``, its blob and ``dconfig-1.0``; the end is ``dseries_end-1.0``. Shapes are [x, y].
Further parts are a user's. The times of an image count from a moment that is said nowhere, so none
are given. (SIMPLON; a recording of streaming-receiver, dranspose's data/eiger_legacy.py.)
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.blobs import Blob, Codec, dtype_of, mask_of, saturation
from phasewatch.plugins.sources.found import Began, Ended, Found, Frame, Lost
from phasewatch.plugins.sources.headers import Count, Header, Kind, Text, read
from phasewatch.plugins.sources.seen import seen

PARTS = range(2, 8, 2)  # of a header: where a table may be described, before its blob
_ENCODING = re.compile(r"(?:bs(8|16|32)-)?(lz4)?([<>])")
_BITS = {8: np.uint8, 16: np.uint16, 32: np.uint32}


class _Series(Header):
    series: Count


class _Start(_Series):
    header_detail: Literal["all", "basic", "none"]


class _Image(_Series):
    frame: Count


class _Config(Header):
    x_pixels_in_detector: Count
    y_pixels_in_detector: Count
    bit_depth_image: Literal[8, 16, 32]
    nimages: Count | None = None
    ntrigger: Count = 1
    wavelength: float | None = None
    countrate_correction_applied: bool = False
    countrate_correction_count_cutoff: Count | None = None


class _Array(Header):
    shape: Annotated[list[Count], Field(min_length=2, max_length=2)]
    type: Text
    encoding: Text = "<"
    size: Count | None = None


class V1:
    """Decoder of messages (parts); knows of a series without details until its first image."""

    def __init__(self) -> None:
        self._due: str | None = None

    def __call__(self, parts: Sequence[memoryview]) -> Iterator[Found]:
        """Say what is in `parts`."""
        kind = read(Kind, parts[0]).htype
        if kind == "dheader-1.0":
            yield from self._start(parts)
        elif kind == "dimage-1.0":
            yield from self._image(parts)
        elif kind == "dseries_end-1.0":
            yield Ended(str(read(_Series, parts[0]).series))
        else:
            raise MessageError(f"not of DECTRIS Stream V1: {seen(parts)}")

    def _start(self, parts: Sequence[memoryview]) -> Iterator[Found]:
        start = read(_Start, parts[0])
        series = str(start.series)
        if start.header_detail == "none":  # what images are like, the first of them says
            self._due = series
            return
        if len(parts) < 2:
            raise MessageError(f"header of series {series}: no configuration")
        config = read(_Config, parts[1])
        height, width = config.y_pixels_in_detector, config.x_pixels_in_detector
        item = ItemSpec.of((height, width), _BITS[config.bit_depth_image])
        facts = _facts(config)
        if start.header_detail == "all" and (mask := _mask(parts)) is not None:
            if mask.shape != item.shape:
                raise MessageError(f"header of series {series}: pixel mask of shape {mask.shape}")
            facts["constants"] = {"mask": mask}
        self._due = None
        yield Began(item, series, facts=facts)

    def _image(self, parts: Sequence[memoryview]) -> Iterator[Found]:
        image = read(_Image, parts[0])
        series = str(image.series)
        try:
            if len(parts) < 3:
                raise MessageError(f"an image of {len(parts)} parts")
            blob = _blob(parts[1], parts[2])
        except PipelineError as error:
            yield Lost(image.frame, str(error), series)
            return
        if series == self._due:
            self._due = None
            yield Began(blob.item, series, facts={"saturation": saturation(blob.dtype)})
        yield Frame(image.frame, blob.item, blob.write, series=series)


def _facts(config: _Config) -> dict[str, Any]:
    """Return what `config` says of the whole run."""
    corrected = config.countrate_correction_applied
    highest = config.countrate_correction_count_cutoff if corrected else None
    facts: dict[str, Any] = {"saturation": saturation(_BITS[config.bit_depth_image], highest)}
    if config.nimages is not None:
        facts["expected"] = config.nimages * config.ntrigger
    if config.wavelength:
        facts["wavelength_m"] = config.wavelength * 1e-10
    return facts


def _mask(parts: Sequence[memoryview]) -> Any:
    """Return the pixel mask (height, width) bool among `parts`, None where there is none."""
    for at in PARTS:
        if at + 1 < len(parts) and read(Kind, parts[at]).htype == "dpixelmask-1.0":
            return mask_of(_blob(parts[at], parts[at + 1]))
    return None


def _blob(header: memoryview, data: memoryview) -> Blob:
    array = read(_Array, header)
    dtype, match = dtype_of(array.type), _ENCODING.fullmatch(array.encoding)
    if match is None or (match[1] and not match[2]):
        raise MessageError(
            f"encoding {array.encoding!r} is not one of <, lz4<, bs8-lz4<, bs16-lz4<, bs32-lz4<"
        )
    if match[1] and int(match[1]) != 8 * dtype.itemsize:
        raise MessageError(f"encoding {array.encoding!r} of {dtype}")
    if array.size not in (None, len(data)):
        raise MessageError(f"{len(data)} bytes came, {array.size} were announced")
    codec: Codec = "bslz4" if match[1] else "lz4" if match[2] else "raw"
    width, height = array.shape
    return Blob(data, (height, width), dtype.newbyteorder("<" if match[3] == "<" else ">"), codec)
