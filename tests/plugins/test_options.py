"""Keys of a plug-in's table that are of the wrong type: one line that names table and key."""

from typing import Any

import pytest

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import found, keys_of, load, open_sink, open_source

LOCAL = {"address": "tcp://127.0.0.1:*"}
NEEDED = {"asapo:target#x": {"beamtime": "11", "source": "lambda"}}


@pytest.mark.parametrize(
    ("scheme", "key", "value"),
    [
        ("hdf5", "ids", 5),
        ("hdf5", "flip", "maybe"),
        ("images", "flip", 2),
        ("series", "unit", 5),
        ("series", "unit", "furlong"),
        ("xy", "unit", ["q_A^-1"]),
        ("lambda-nexus", "modules", "three"),
        ("lambda-nexus", "modules", 0),
        ("lambda-nexus", "modules", 3.5),
        ("karabo-bridge", "type", "REP"),
        ("karabo-bridge", "axes", 5),
        ("karabo-bridge", "idle_timeout_s", 0),
        ("extra-data", "trains", 5),
        ("extra-data", "pulses", [0, 1]),
        ("zmq", "socket", "rep"),
        ("zmq", "socket", 5),
        ("zmq", "bind", "maybe"),
        ("zmq", "idle_timeout_s", 0),
        ("zmq", "idle_timeout_s", -1.0),
        ("zmq", "idle_timeout_s", "soon"),
        ("zmq", "idle_timeout_s", float("nan")),
    ],
)
def test_source(scheme: str, key: str, value: Any) -> None:
    with pytest.raises(PipelineError) as error:
        open_source(f"{scheme}:target#x", **{key: value})
    assert str(error.value).startswith(f"[source] {scheme}: key {key!r}: Input should be ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("nexus", {"path": 5}, "path"),
        ("karabo-bridge", {"address": 5}, "address"),
        ("karabo-bridge", LOCAL | {"socket": "REQ"}, "socket"),
        ("karabo-bridge", LOCAL | {"queue": 0}, "queue"),
        ("zmq", {"address": 5555}, "address"),
        ("zmq", LOCAL | {"every": 0}, "every"),
        ("zmq", LOCAL | {"every": "often"}, "every"),
        ("zmq", LOCAL | {"every": 1.5}, "every"),
        ("zmq", LOCAL | {"wait_for": -1}, "wait_for"),
        ("zmq", LOCAL | {"wait_for": "all"}, "wait_for"),
        ("zmq", LOCAL | {"wait_s": float("inf")}, "wait_s"),
        ("zmq", LOCAL | {"wait_s": 0}, "wait_s"),
    ],
)
def test_sink(kind: str, options: dict[str, Any], key: str) -> None:
    with pytest.raises(PipelineError) as error:
        open_sink(kind, **options)
    assert str(error.value).startswith(f"[[sink]] {kind}: key {key!r}: Input should be ")
    assert "\n" not in str(error.value)


def test_right_types_are_taken() -> None:
    open_source("zmq:tcp://127.0.0.1:5555", idle_timeout_s=5, socket="sub", bind=False)
    open_source("hdf5:a.h5#/x", ids="/ids", flip=True)
    open_source("lambda-nexus:run", modules=3)
    open_sink("zmq", **LOCAL, every=1, wait_for=0, wait_s=1)


def test_keys_can_be_listed() -> None:
    keys = ["address", "every = 50", "wait_for = 0", "wait_s = 30.0", "keys"]
    assert keys_of(load("sinks", "zmq")) == keys
    assert keys_of(load("sources", "lambda-nexus")) == [
        "modules",
        "follow = False",
        "idle_timeout_s",
    ]


def test_every_key_of_ours_is_checked() -> None:
    for group, open_ in (("sources", open_source), ("sinks", open_sink)):
        for name, point in found(group).items():
            if not point.value.startswith("phasewatch.plugins."):
                continue
            target = name if group == "sinks" else f"{name}:target#x"
            keys = [text.partition(" ")[0] for text in keys_of(point.load())]
            local = LOCAL if group == "sinks" and "address" in keys else {}
            needed = local | NEEDED.get(target, {})
            for key in keys:
                with pytest.raises(PipelineError, match=f"{name}: key {key!r}: "):
                    open_(target, **{**needed, key: object()})
