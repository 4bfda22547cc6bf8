"""The messages of a Karabo bridge, protocols 1.0, 2.0, 2.1 and 2.2, to and from bytes.

A message is a train: by source a map of values, some of them arrays, and metadata. 1.0 is one part,
msgpack with arrays embedded in it; 2.x are pairs of a header and a payload. Format: the serializer
of European-XFEL/karabo-bridge-py. Nothing that a peer says is trusted: arrays stay bytes with
claims until `Block.array` has compared them, only numbers become arrays, nothing is unpickled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.messages import MessageError, Part

HEADER_BYTES = 1 << 20
ITEMS = 1 << 16  # of a map
MAX_AXES = 8
_KINDS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
# By what both protocols call it, 'uint16' or '<u2': a peer's text is never given to numpy.
_NUMBERS = {
    name: np.dtype(kind)
    for kind in (*_KINDS, *(f">{kind}" for kind in _KINDS))
    for name in (
        str(np.dtype(kind)),
        np.dtype(kind).str,
        kind,
        np.dtype(kind).str.replace("<", "="),
    )
}


@dataclass(frozen=True, slots=True)
class Block:
    """An array as it came: what it claims to be, and its bytes."""

    dtype: Any
    shape: Any
    data: memoryview

    def array(self, name: str) -> NDArray[Any]:
        """Return it without a copy, read-only or not as the bytes are.

        Raises
        ------
        MessageError
            It is none of numbers, or its bytes are not what it claims.
        """
        dtype = _NUMBERS.get(self.dtype) if isinstance(self.dtype, str) else None
        if dtype is None:
            raise MessageError(f"{name}: dtype {self.dtype!r:.40} is not one of numbers")
        shape = self.shape
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_AXES
            or any(type(n) is not int or not 0 <= n < 1 << 40 for n in shape)
        ):
            raise MessageError(f"{name}: {shape!r:.80} is not a shape")
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes != self.data.nbytes:
            raise MessageError(
                f"{name}: {dtype} {tuple(shape)} is {nbytes} bytes, {self.data.nbytes} came"
            )
        if math.prod(n or 1 for n in shape) >= 1 << 40:  # numpy counts empty axes as 1
            raise MessageError(f"{name}: {tuple(shape)} is too large, though empty")
        return np.ndarray(tuple(shape), dtype, self.data)


@dataclass(frozen=True, slots=True)
class Sourced:
    """What one source gave in a train: `values` by key, arrays among them as `Block`."""

    values: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def decode(parts: Sequence[memoryview]) -> dict[str, Sourced]:
    """Return what is in a message, by source.

    Raises
    ------
    MessageError
        It is none of a Karabo bridge.
    """
    if len(parts) == 1:
        return {source: _whole(source, v) for source, v in _map(parts[0], "message").items()}
    if len(parts) % 2 or not parts:
        raise MessageError(f"a message of {len(parts)} parts, which should be pairs")
    found: dict[str, Sourced] = {}
    for header, payload in zip(parts[::2], parts[1::2], strict=True):
        if header.nbytes > HEADER_BYTES:
            raise MessageError(f"a header of {header.nbytes} bytes")
        said = _map(header, "header")
        source, content, path = said.get("source"), said.get("content"), said.get("path")
        if not isinstance(source, str):
            raise MessageError("a header without a source")
        into = found.setdefault(source, Sourced())
        if content == "msgpack":
            values = _map(payload, f"source {source:.100}")
            into.metadata.update(_metadata(said.get("metadata"), values))
            into.values.update(values)
        elif content in ("array", "ImageData") and isinstance(path, str):
            into.values[path] = Block(said.get("dtype"), said.get("shape"), payload)
        else:
            raise MessageError(f"source {source:.100}: content {content!r:.40} is not known")
    return found


def encode(source: str, values: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[Part]:
    """Return the parts of a message of protocol 2.2 with what one source gives.

    `values` are arrays of numbers and what msgpack packs. The arrays are not copied.
    """
    arrays = {k: np.ascontiguousarray(v) for k, v in values.items() if isinstance(v, np.ndarray)}
    plain = {k: v for k, v in values.items() if k not in arrays}
    head = {"source": source, "content": "msgpack", "metadata": dict(metadata)}
    parts: list[Part] = [msgpack.packb(head), msgpack.packb(plain)]
    for key, array in arrays.items():
        said = {"content": "array", "path": key, "dtype": str(array.dtype), "shape": array.shape}
        data = array.reshape(-1).view(np.uint8).data if array.size else b""
        parts += [msgpack.packb({"source": source, **said}), data]
    return parts


def _whole(source: Any, values: Any) -> Sourced:
    """Return a source of protocol 1.0."""
    if not isinstance(source, str) or not isinstance(values, dict):
        raise MessageError("a message of one part that is no map of sources")
    return Sourced(values, _metadata(None, values))


def _metadata(header: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a source, which 2.2 has in the header, 1.0 and 2.0 in the payload.

    2.1 has each item of it flat among the values.
    """
    if isinstance(header, dict):
        return header
    inside = values.get("metadata")
    if isinstance(inside, dict):
        return inside
    prefix = "metadata."
    flat = {k: v for k, v in values.items() if isinstance(k, str) and k.startswith(prefix)}
    return {k.removeprefix(prefix): v for k, v in flat.items()}


def _map(part: memoryview, what: str) -> dict[Any, Any]:
    try:
        found = msgpack.unpackb(
            part, raw=False, object_hook=_embedded, max_map_len=ITEMS, max_array_len=1 << 20
        )
    except (ValueError, TypeError, OverflowError) as error:  # of msgpack, all of them
        reason = str(error) or type(error).__name__
        raise MessageError(f"{what}: not msgpack of a Karabo bridge ({reason:.100})") from None
    if not isinstance(found, dict):
        raise MessageError(f"{what}: not a map but {type(found).__name__}")
    return found


def _embedded(found: dict[Any, Any]) -> Any:
    """Turn what msgpack_numpy makes of an array into a `Block`, and of a number into one."""
    data = found.get(b"data")
    if b"nd" not in found or not isinstance(data, bytes):
        return found
    if found[b"nd"] is True:
        dtype = found.get(b"type") if found.get(b"kind", b"") == b"" else found.get(b"kind")
        return Block(dtype, found.get(b"shape"), memoryview(data))
    try:
        return Block(found.get(b"type"), [], memoryview(data)).array("number").item()
    except MessageError:  # of a kind that nothing here asks for
        return None
