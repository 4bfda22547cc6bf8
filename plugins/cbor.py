"""CBOR (RFC 8949) as detectors send it, hostile until it is read, and no byte of an image copied.

Byte strings come out as views of the message; cbor2 copies each, which of an image is one copy more
than the decoder's own. A message cannot make more of us than `ITEMS` objects, whatever it claims.
"""

import struct
from dataclasses import dataclass
from typing import Any

from phasewatch.pipeline.messages import MessageError

ITEMS = 1 << 16  # of a message; a DECTRIS start has some 100
DEPTH = 16  # of nesting; a DECTRIS image has 7
TEXT = 1 << 20  # bytes of text that are made a str
SELF_DESCRIBED = 55799
_SIMPLE = {20: False, 21: True, 22: None, 23: None}
_FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_BREAK = object()


@dataclass(frozen=True, slots=True)
class Tag:
    """A value with what it is to mean."""

    number: int
    value: Any


def loads(message: memoryview | bytes) -> Any:
    """Return the one item in `message`: byte strings as views of it, tags as `Tag`.

    Tag 55799, that of CBOR itself, is skipped. Text longer than `TEXT` stays a view. Keys of maps
    are text or integers.

    Raises
    ------
    MessageError
        It is not one whole item, holds what we do not read (strings in pieces), or too much.
    """
    reader = _Reader(memoryview(message).cast("B"))
    item = reader.item(0)
    if item is _BREAK or reader.at != len(reader.data):
        raise reader.bad("one item is expected")
    return item


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self._items = data, 0, 0

    def bad(self, why: str) -> MessageError:
        return MessageError(f"CBOR, byte {self.at} of {len(self.data)}: {why}")

    def item(self, depth: int) -> Any:
        self._items += 1
        if self._items > ITEMS or depth > DEPTH:
            raise self.bad(f"more than {ITEMS} items, or {DEPTH} in each other")
        major, low = divmod(self._take(1)[0], 32)
        if major == 7:
            return self._simple(low)
        if low == 31:
            return self._endless(major, depth)
        n = self._number(low)
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return self._take(n)
        if major == 3:
            return self._text(n)
        if major == 6:
            value = self._inner(depth)
            return value if n == SELF_DESCRIBED else Tag(n, value)
        if n > len(self.data) - self.at:  # each is a byte at least
            raise self.bad(f"{n} items are claimed")
        if major == 4:
            return [self._inner(depth) for _ in range(n)]
        return {self._key(self._inner(depth)): self._inner(depth) for _ in range(n)}

    def _inner(self, depth: int) -> Any:
        item = self.item(depth + 1)
        if item is _BREAK:
            raise self.bad("a break that ends nothing")
        return item

    def _endless(self, major: int, depth: int) -> Any:
        """Return an array or a map whose end is marked."""
        if major not in (4, 5):
            raise self.bad("a string in pieces, or a length that is none")
        items = list[Any]()
        while (item := self.item(depth + 1)) is not _BREAK:
            items.append(item)
        if major == 4:
            return items
        if len(items) % 2:
            raise self.bad("a key without a value")
        return dict(zip(map(self._key, items[::2]), items[1::2], strict=True))

    def _simple(self, low: int) -> Any:
        if low in _FLOATS:
            return _FLOATS[low].unpack(self._take(_FLOATS[low].size))[0]
        if low == 31:
            return _BREAK
        if low not in _SIMPLE:
            raise self.bad(f"simple value {low}")
        return _SIMPLE[low]

    def _number(self, low: int) -> int:
        if low < 24:
            return low
        if low > 27:
            raise self.bad("a length that is none")
        return int.from_bytes(self._take(1 << (low - 24)), "big")

    def _key(self, key: Any) -> str | int:
        if isinstance(key, str | int):
            return key
        raise self.bad("a key that is neither text nor integer")

    def _text(self, n: int) -> Any:
        text = self._take(n)
        if n > TEXT:
            return text
        try:
            return str(text, "utf-8")
        except UnicodeDecodeError:
            raise self.bad("text that is not UTF-8") from None

    def _take(self, n: int) -> memoryview:
        if n > len(self.data) - self.at:
            raise self.bad(f"{n} bytes are claimed, {len(self.data) - self.at} are there")
        self.at += n
        return self.data[self.at - n : self.at]
