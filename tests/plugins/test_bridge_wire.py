"""Messages of a Karabo bridge: what karabo_bridge writes we read, what we write it reads."""

from typing import Any

import karabo_bridge
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from karabo_bridge.serializer import serialize

from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.bridge_wire import Block, decode, encode

IMAGE = np.arange(24, dtype=np.uint16).reshape(4, 6)
META = {
    "source": "A/B/C:out",
    "timestamp.tid": 7,
    "timestamp.sec": "1600000000",
    "timestamp.frac": "5",
}
VALUES = {
    "data.image": IMAGE,
    "big endian": IMAGE.astype(">i4"),
    "scalar": np.array(3.5),
    "empty": np.empty((0, 3), np.float32),
    "text": "Δ",
    "number": np.float32(2.5),
    "list": [1, 2, None, True],
}


def views(parts: list[Any]) -> list[memoryview]:
    return [memoryview(bytes(part)) for part in parts]


def version_1_0(data: dict[str, Any], meta: dict[str, Any]) -> list[bytes]:
    return serialize(data, meta, protocol_version="1.0")


def version_2_2(data: dict[str, Any], meta: dict[str, Any]) -> list[bytes]:
    return serialize(data, meta, protocol_version="2.2")


def version_2_0(data: dict[str, Any], meta: dict[str, Any]) -> list[bytes]:
    return older(data, {src: {"metadata": said} for src, said in meta.items()})


def version_2_1(data: dict[str, Any], meta: dict[str, Any]) -> list[bytes]:
    flat = {s: {f"metadata.{k}": v for k, v in said.items()} for s, said in meta.items()}
    return older(data, flat)


def older(data: dict[str, Any], said: dict[str, dict[str, Any]]) -> list[bytes]:
    """Return pairs whose metadata `said` is in the payload."""
    parts: list[Any] = []
    for source, values in data.items():
        plain = {k: v for k, v in values.items() if not isinstance(v, np.ndarray | np.generic)}
        parts += [{"source": source, "content": "msgpack"}, plain | said[source]]
        for key, array in values.items():
            if isinstance(array, np.ndarray):
                head = {"source": source, "content": "array", "path": key}
                parts += [head | {"dtype": str(array.dtype), "shape": array.shape}, array.tobytes()]
    return [part if isinstance(part, bytes) else msgpack.packb(part) for part in parts]


VERSIONS = [version_1_0, version_2_0, version_2_1, version_2_2]


@pytest.mark.parametrize("version", VERSIONS)
def test_reads_every_version(version: Any) -> None:
    message = version({"A": VALUES, "B": {"x": 1}}, {"A": META, "B": {"timestamp.tid": 8}})
    found = decode(views(message))
    assert found.keys() == {"A", "B"}
    assert found["A"].metadata == META
    assert found["B"].metadata == {"timestamp.tid": 8}
    values = found["A"].values
    assert (values["text"], values["list"]) == ("Δ", [1, 2, None, True])
    for key in ("data.image", "big endian", "scalar", "empty"):
        got = values[key].array(key)
        assert got.dtype == VALUES[key].dtype
        np.testing.assert_array_equal(got, VALUES[key], strict=True)
    if version in (version_1_0, version_2_2):
        assert values["number"] == 2.5


def test_agrees_with_karabo_bridge() -> None:
    message = version_2_2({"A": VALUES}, {"A": META})
    theirs, meta = karabo_bridge.deserialize(views(message))
    ours = decode(views(message))
    assert meta["A"] == ours["A"].metadata
    for key, value in theirs["A"].items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(ours["A"].values[key].array(key), value, strict=True)
        else:
            assert ours["A"].values[key] == value


def test_what_we_write_karabo_bridge_reads() -> None:
    values = {"image": IMAGE[:, ::2], "empty": np.empty(0), "label": "before", "n": 3, "none": None}
    data, meta = karabo_bridge.deserialize(views(encode("A", values, META)))
    assert meta == {"A": META}
    np.testing.assert_array_equal(data["A"].pop("image"), IMAGE[:, ::2], strict=True)
    np.testing.assert_array_equal(data["A"].pop("empty"), np.empty(0), strict=True)
    assert data["A"] == {"label": "before", "n": 3, "none": None}


def test_arrays_are_not_copied() -> None:
    parts = views(version_2_2({"A": {"x": IMAGE}}, {"A": META}))
    got = decode(parts)["A"].values["x"].array("x")
    assert np.shares_memory(got, np.frombuffer(parts[-1], np.uint8))


def pair(header: Any, payload: Any = b"") -> list[memoryview]:
    packed = [p if isinstance(p, bytes) else msgpack.packb(p) for p in (header, payload)]
    return views(packed)


HEAD = {"source": "A", "content": "array", "path": "x", "dtype": "uint16", "shape": [2, 2]}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "0 parts"),
        (views([b""]), "not msgpack"),
        (views([b"\xc1"]), "not msgpack"),
        (views([b"Error: bad request"]), "not msgpack"),
        (views([msgpack.packb([1, 2])]), "not a map but list"),
        (views([msgpack.packb({"A": 5})]), "no map of sources"),
        (views([msgpack.packb({b"A": {}})]), "no map of sources"),
        (views([b"\xdf\xff\xff\xff\xff"]), "not msgpack"),  # a map of 4 billion
        (views([b"\xdd\xff\xff\xff\xff"]), "not msgpack"),
        (views([b"\x91" * 100_000]), "not msgpack"),  # lists in lists
        (views([b"\xa2\xff\xff"]), "not msgpack"),  # no utf-8
        (views([b"\x81\x90\x90"]), "not msgpack"),  # a list as key
        (views([b"a", b"b", b"c"]), "3 parts, which should be pairs"),
        (pair(b"\xc1"), "header: not msgpack"),
        (pair(b"\xd9\xff" + bytes(1 << 21)), "a header of"),
        (pair({"content": "array"}), "without a source"),
        (pair({"source": 5, "content": "array"}), "without a source"),
        (pair({"source": "A", "content": "pickle"}), "content 'pickle' is not known"),
        (pair({"source": "A", "content": "array", "path": 5}), "is not known"),
        (pair({"source": "A", "content": "msgpack"}, [1]), "source A: not a map"),
    ],
)
def test_what_is_no_message_is_refused(parts: list[memoryview], said: str) -> None:
    with pytest.raises(MessageError, match=said):
        decode(parts)


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"dtype": "O"}, "not one of numbers"),
        ({"dtype": "V8"}, "not one of numbers"),
        ({"dtype": "i4,f4"}, "not one of numbers"),
        ({"dtype": "(1000000,1000000)f8"}, "not one of numbers"),
        ({"dtype": "<U4"}, "not one of numbers"),
        ({"dtype": "bool"}, "not one of numbers"),
        ({"dtype": ["<u2"]}, "not one of numbers"),
        ({"dtype": None}, "not one of numbers"),
        ({"shape": None}, "is not a shape"),
        ({"shape": [2, "2"]}, "is not a shape"),
        ({"shape": [-2, -2]}, "is not a shape"),
        ({"shape": [2.0, 2]}, "is not a shape"),
        ({"shape": [True, 4]}, "is not a shape"),
        ({"shape": [1 << 62, 1 << 62, 0]}, "is not a shape"),
        ({"shape": [1] * 40}, "is not a shape"),
        ({"shape": [1 << 39, 1 << 39]}, "bytes, 8 came"),
        ({"shape": [2, 3]}, r"uint16 \(2, 3\) is 12 bytes, 8 came"),
        ({"dtype": "float64"}, "32 bytes, 8 came"),
    ],
)
def test_what_an_array_claims_is_compared(claim: dict[str, Any], said: str) -> None:
    found = decode(pair(HEAD | claim, bytes(8)))
    with pytest.raises(MessageError, match=said):
        found["A"].values["x"].array("x")


def test_nothing_is_unpickled() -> None:
    objects = np.array([print], object)
    packed = msgpack.packb({"A": {"x": objects, "y": 1}}, default=msgpack_numpy.encode)
    found = decode(views([packed]))["A"].values
    assert found["y"] == 1
    with pytest.raises(MessageError, match="not one of numbers"):
        found["x"].array("x")


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
def test_random_bytes_are_a_message_or_refused(parts: list[bytes]) -> None:
    try:
        decode(views(parts))
    except MessageError:
        return


@given(st.data(), st.sampled_from(VERSIONS))
def test_damaged_messages_are_read_or_refused(data: Any, version: Any) -> None:
    parts = version({"A": VALUES}, {"A": META})
    which = data.draw(st.integers(0, len(parts) - 1))
    part = bytearray(parts[which])
    for _ in range(data.draw(st.integers(1, 4))):
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    parts = [*parts[:which], bytes(part), *parts[which + 1 :]]
    try:
        found = decode(views(parts))
        for sourced in found.values():
            for key, value in sourced.values.items():
                if isinstance(value, Block):
                    value.array(str(key))
    except MessageError:
        return
