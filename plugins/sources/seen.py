"""What a message is that is none of the protocol that was expected: for the error."""

from collections.abc import Sequence
from contextlib import suppress

import msgpack

from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources import headers

CBOR = b"\xd9\xd9\xf7"  # self-described, RFC 8949 section 3.4.6
LONGEST = 4096  # bytes of a header that is looked into


def seen(parts: Sequence[memoryview]) -> str:
    """Return what the message `parts` looks like, in a few words."""
    first = bytes(parts[0][:LONGEST]) if parts else b""
    how_many = f"{len(parts)} parts" if len(parts) != 1 else "one part"
    return f"{how_many}, {_looks_like(first)}"


def _looks_like(first: bytes) -> str:
    if not first:
        return "the first is empty"
    if first.startswith(CBOR):
        return "self-described CBOR, as of DECTRIS Stream V2"
    if first[:1] == b"{":
        with suppress(MessageError):
            return f"JSON with htype {headers.read(headers.Kind, first).htype!r}"
        return "JSON without an htype"
    if first[:2] == b"\x80\x04":
        return "a Python pickle"
    if first[:5] in (b"HTTP/", b"GET /"):
        return "HTTP"
    with suppress(Exception):  # whatever an unpacker of hostile bytes may raise
        found = msgpack.unpackb(first)
        if isinstance(found, dict) and "content" in found:
            return "msgpack, as of a Karabo bridge"
        if isinstance(found, dict) and "body" in found:
            return "msgpack, as of our own protocol (zmq:)"
        if isinstance(found, dict):
            return "msgpack"
    return f"beginning with {first[:8]!r}"
