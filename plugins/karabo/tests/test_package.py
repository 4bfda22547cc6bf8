"""What the distribution is and what it decides with; no broker."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points

import numpy as np
import pytest
from karabo.middlelayer import Hash

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.bodies import StopBody
from phasewatch.pipeline.documents import ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.health import Book, Status, run_status
from phasewatch.pipeline.messages import decode, encode, encode_batch, encode_start
from phasewatch_karabo import device
from phasewatch_karabo.alarms import Flow, Limits, warnings
from phasewatch_karabo.frames import Stream, WrongFrameError
from phasewatch_karabo.results import Result, Results
from phasewatch_karabo.scene import scene

SCHEMA = device.PhasewatchNode.getClassSchema().hash


def test_it_is_found_by_the_device_server_and_imports_nothing_heavy() -> None:
    [point] = [
        p for p in entry_points(group="karabo.middlelayer_device") if "phasewatch" in p.value
    ]
    assert point.load() is device.PhasewatchNode
    heavy = {"torch", "pyFAI", "numba", "scipy", "h5py", "fabio", "sklearn"}
    code = f"import sys, {point.module}; sys.exit(str({heavy} & set(sys.modules) or '') or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_properties_are_in_camel_case_and_say_what_they_are() -> None:
    for key in SCHEMA.paths():
        if key.startswith("_"):
            continue
        assert all(re.fullmatch("[a-z][a-zA-Z0-9]*", part) for part in key.split(".")), key
    assert SCHEMA["latencyP99", "unitSymbol"] == "s"
    assert SCHEMA["latencyP99", "metricPrefixSymbol"] == "m"
    assert SCHEMA["inputRate", "unitSymbol"] == "Hz"


def test_the_scene_shows_what_there_is() -> None:
    root = ElementTree.fromstring(scene("A/B/C"))
    krb = "{http://karabo.eu/scene}"
    keys = [k for e in root.iter() for k in (e.get(f"{krb}keys") or "").split(",") if k]
    assert len(keys) > 25
    for key in keys:
        assert key.removeprefix("A/B/C.") in SCHEMA, key
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for element in root.iter():
        if element.get("x"):
            x, y, w, h = (float(element.get(k) or 0) for k in ("x", "y", "width", "height"))
            assert x + w <= width
            assert y + h <= height


def status(**track: object) -> Status:
    book = Book(began_ns=0)
    book.report("receiver", {"received": 9, "missed": 2}, 0)
    book.report("sink", {"written": 5, "p99_ms": 900.0}, 0)
    zone = {"boundary": 0, "after": 1, "before": 4, "n": 2, "passed": True}
    report = {"classified": 5, "failed": 1, "dropped": {"ring full": 3}, "phase": 1, **track}
    book.report("tracker", {"posterior": 0.9, "confidence": 0.5, "zones": [zone], **report}, 0)
    return run_status(book, 0, run_id="r", classes=("a", "b"))


def test_warnings() -> None:
    calm, quiet = Flow(lost=0, age_s=0.1, waiting=True), Limits(0.0, 0.0, 0.0)
    assert warnings(status(), status(), calm, quiet) == []
    assert warnings(status(), None, calm, quiet) == ["6 frames lost in the chain"]
    assert warnings(status(failed=3), status(), calm, quiet) == ["2 frames lost in the chain"]
    assert warnings(status(), status(), calm, Limits(0.5, 5.0, 0.6)) == [
        "latency 0.9 s",
        "confidence 0.50",
    ]
    late = Flow(lost=4, age_s=7.0, waiting=True)
    assert warnings(status(phase=-1), status(), late, Limits(0.0, 5.0, 0.0)) == [
        "4 frames lost in the node",
        "no result for 7.0 s",
        "phase unknown",
    ]


def test_a_run_that_is_sent() -> None:
    stream = Stream("r", "karabo:X")
    assert stream.failed(3, "before the first: the chain knows no run yet") == []
    frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    for i in range(2):
        start, batch = (decode(parts) for parts in stream.frame(frame, 10 + i, 5))
        assert start.run().items == {"frame": ItemSpec.of((2, 3), np.uint16)}
        assert (batch.batch().seq.tolist(), batch.batch().ids.tolist()) == ([i], [10 + i])
        assert np.array_equal(batch.batch().arrays["frame"][0], frame)
        assert np.shares_memory(batch.batch().arrays["frame"], frame)
    with pytest.raises(WrongFrameError, match="float32"):
        stream.frame(frame.astype(np.float32), 12, 5)
    bodies = [decode(p).body for p in (stream.failed(12, "bad")[1], stream.dropped(13, "full")[1])]
    assert [body.items[0][:2] for body in bodies] == [(2, 12), (3, 13)]
    assert decode(stream.end("end")).body.stop.loss.received == 4


def test_results_that_are_not_what_was_announced_are_refused() -> None:
    items = {"intensity": ItemSpec.of((4,), "f4"), "probability": ItemSpec.of((2,), "f4")}
    run = RunStart(run_id="r", source="s", items=items)
    results, seq = Results(), np.arange(1)

    def take(parts: list[bytes]) -> list[object]:
        return list(results.take(decode(parts)))

    def batch(n_bins: int) -> list[bytes]:
        arrays = {"intensity": np.zeros((1, n_bins), "f4"), "probability": np.ones((1, 2), "f4")}
        return encode_batch("r", Batch(seq, seq, None, arrays))

    assert take(batch(4)) == []  # before the start
    flat = run.evolve(items={"intensity": ItemSpec.of((), "i8")})
    assert take(encode_start(flat)) == []
    assert [type(x) for x in take(encode_start(run))] == [RunStart]
    assert take(batch(5)) == []
    assert (results.refused, "intensity" in results.last_error) == (2, True)
    [result] = take(batch(4))
    assert isinstance(result, Result)
    loss = Loss(received=3, classified=3)
    [end] = take(encode(StopBody(stop=RunStop(run_id="r", reason="end", loss=loss))))
    assert (type(end), results.run, results.missed) == (RunStop, None, 2)
    assert (result.label, result.probability.tolist()) == (-1, [1.0, 1.0])


def test_a_scene_of_another_name_is_not_there() -> None:
    node = device.PhasewatchNode({"deviceId": "A/B/C"})
    answer = node.requestScene(Hash("name", "other"))
    assert not answer["payload.success"]
    assert node.requestScene(Hash())["payload.data"].startswith("<svg:svg")
