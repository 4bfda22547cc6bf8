"""CBOR: what cbor2 writes is read the same, without copies, and hostile bytes cost nothing."""

import tracemalloc
from contextlib import suppress
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.cbor import ITEMS, TEXT, Tag, loads

SCALARS = (
    st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4)
        | st.tuples(st.integers(100, 60000), inner).map(lambda t: cbor2.CBORTag(*t))
    ),
    max_leaves=20,
)


def plain(value: Any) -> Any:
    """Return `value` of either reader in one form."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, Tag):
        return "tag", value.number, plain(value.value)
    if isinstance(value, cbor2.CBORTag):
        return "tag", value.tag, plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@given(VALUES, st.booleans())
def test_the_same_as_cbor2_wrote(value: Any, canonical: bool) -> None:
    message = cbor2.dumps(cbor2.CBORTag(55799, value), canonical=canonical)
    try:
        found = loads(message)
    except MessageError:
        reject()  # it is nested too deep
    assert plain(found) == plain(value)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("9f018202039fffff", [1, [2, 3], []]),
        ("bf6161018162ff", None),
        ("bf616101ff", {"a": 1}),
        ("f93c00", 1.0),
        ("3bffffffffffffffff", -(1 << 64)),
    ],
)
def test_ends_that_are_marked(message: str, value: Any) -> None:
    if value is None:
        with pytest.raises(MessageError):
            loads(bytes.fromhex(message))
    else:
        assert loads(bytes.fromhex(message)) == value


def test_bytes_are_not_copied() -> None:
    message = cbor2.dumps({"data": bytes(10_000), "text": "t" * (TEXT + 1)})
    found = loads(message)
    whole = np.frombuffer(message, np.uint8)
    for view in found.values():
        assert np.shares_memory(np.frombuffer(view, np.uint8), whole)


HOSTILE = {
    "empty": b"",
    "two items": b"\x01\x01",
    "bytes beyond the end": b"\x5b" + b"\x7f" * 8 + b"x",
    "an array of 2^63": b"\x9b\x7f" + b"\xff" * 7,
    "a map of 2^63": b"\xbb\x7f" + b"\xff" * 7,
    "nesting": b"\x81" * 100_000,
    "nesting tags": b"\xc1" * 100_000,
    "nesting without ends": b"\x9f" * 100_000,
    "millions of empty maps": b"\x9a\x00\x98\x96\x80" + b"\xa0" * 10_000_000,
    "a break": b"\xff",
    "a break in an array": b"\x82\x01\xff",
    "a break as a value": b"\xbf\x61a\xff",
    "a key that is a map": b"\xa1\xa0\x01",
    "text that is none": b"\x62\xff\xff",
    "text in pieces": b"\x7f\x61a\xff",
    "reserved": b"\x1c",
    "simple": b"\xf8\x20",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(MessageError):
        loads(HOSTILE[name])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * ITEMS  # bytes


@given(st.binary(max_size=200))
def test_any_bytes(message: bytes) -> None:
    with suppress(MessageError):
        loads(message)
