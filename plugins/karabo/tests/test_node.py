"""The node between a source and a client, over a real broker, with a real chain behind it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from karabo.middlelayer import AlarmCondition, Hash, KaraboError, State
from nodes import Stage, stamp, until

Begin = Callable[..., Any]


async def go_on_with_another_calibration(
    on: Stage, expected: dict[str, Any], prepared: Path
) -> None:
    first, n = on.node.calibrationDigest.value, len(on.client.got)
    on.node.poni, on.node.mask = str(prepared / "far.poni"), str(prepared / "mask.npy")
    await on.proxy.loadCalibration()
    await on.state(State.PROCESSING, State.ERROR)
    assert on.node.state == State.PROCESSING, on.node.status
    await on.source.send(expected["frames"][1], 6)
    await on.results(n + 1)
    assert on.client.column("seq")[-1] == 0
    assert on.client.patterns()[-1].tobytes() == expected["far"][1].tobytes()
    assert on.node.calibrationDigest.value not in ("", first)


async def test_a_chain_of_its_own(
    stage: Begin, configure: Any, expected: dict[str, Any], prepared: Path
) -> None:
    on: Stage = await stage(**configure())
    with pytest.raises(KaraboError, match="not allowed in state"):
        await on.proxy.resetTracker()
    await on.start()
    with pytest.raises(KaraboError, match="not allowed in state"):
        await on.proxy.start()
    for i, frame in enumerate(expected["frames"]):
        await on.source.send(frame, 1000 + 2 * i)
    n = len(expected["frames"])
    await on.results(n)
    assert on.client.patterns().tobytes() == expected["patterns"].tobytes()
    assert on.client.column("seq") == list(range(n))
    assert on.client.column("trainId") == list(range(1000, 1000 + 2 * n, 2))
    assert [t.tid for _, t in on.client.got] == on.client.column("trainId")
    assert on.client.got[3][1].time_frac == stamp(1006).time_frac
    assert set(on.client.column("label")) == {-1}  # it does not classify
    await on.source.output.writeEndOfStream()
    await until(lambda: on.client.ends == 1)
    # the next run, which may have another shape
    await on.source.send(expected["frames"][0], 5)
    await on.results(n + 1)
    assert on.client.column("seq")[-1] == 0
    assert on.client.patterns()[-1].tobytes() == expected["patterns"][0].tobytes()
    first = on.node.calibrationDigest.value
    await go_on_with_another_calibration(on, expected, prepared)
    # killed and back: it begins with what the file names
    os.killpg(on.node._line.pid, signal.SIGKILL)
    await on.state(State.ERROR)
    assert "the chain ended (exit code -9)" in on.node.status.value
    assert on.node.globalAlarmCondition == AlarmCondition.ALARM
    await on.source.send(expected["frames"][1], 7)
    await until(lambda: on.node.framesDropped.value == 1)
    await on.start()
    await on.source.send(expected["frames"][2], 8)
    await on.results(n + 3)
    assert on.client.patterns()[-1].tobytes() == expected["patterns"][2].tobytes()
    assert on.node.calibrationDigest.value == first
    await on.stop()
    assert on.client.ends == 3
    with pytest.raises(KaraboError, match="not allowed in state"):
        await on.proxy.stop()


async def refuse_what_is_not_the_image_due(on: Stage, expected: dict[str, Any]) -> None:
    good, patterns = expected["frames"], expected["patterns"]
    claims = Hash("type", 14, "shape", np.array([900, 800], np.uint64), "isBigEndian", False)
    claims["data"] = b"\0" * 64
    cube = Hash("type", 14, "shape", np.array([2, 2, 2], np.uint64), "isBigEndian", False)
    cube["data"] = b"\0" * 16
    await on.source.send(good[0], 1)
    for data, text in (
        (Hash("data.other", 3), "data.image: no such key; there are: data.other"),
        (Hash("data.image", 3.5), "data.image: a float64, not an NDArray or Image"),
        (Hash("data.image", "text"), "data.image: a str, not an NDArray or Image"),
        (Hash("data.image", Hash("type", 14)), "data.image: a Hash, not an NDArray or Image"),
        (Hash("data.image", claims), "64 bytes came for uint32 (900, 800)"),
        (Hash("data.image", cube), "shape (2, 2, 2), not (height, width)"),
    ):
        before = on.node.framesRefused.value
        await on.source.send_raw(data, 2)
        await until(lambda n=before: on.node.framesRefused.value > n)
        assert text in on.node.lastRefused.value
    await on.source.send(good[1][:50], 3)
    await until(lambda: on.node.framesRefused.value == 7)
    why = "uint16 (50, 80) came, the run is of uint16 (96, 80)"
    assert on.node.lastRefused.value == why
    await until(lambda: on.node.globalAlarmCondition == AlarmCondition.WARN)
    await on.source.send(good[1], 4)
    await on.results(2)
    assert on.client.patterns().tobytes() == patterns[:2].tobytes()
    assert on.client.column("trainId") == [1, 4]
    await until(lambda: on.node.framesLost.value == 7)  # the chain has them in its loss table


async def test_a_chain_that_runs_by_itself(
    stage: Begin, configure: Any, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Attached: no process of the device; when the chain is gone and back frames flow again."""
    from conftest import EXECUTABLE

    from phasewatch_karabo.chain import Program

    keys = configure(own=False)
    path = keys.pop("path")
    on: Stage = await stage(**keys)
    await on.proxy.start()
    await on.state(State.ERROR)
    assert "no answer within" in on.node.status.value
    chain = Program(EXECUTABLE, path)
    try:
        while on.node.state != State.PROCESSING:
            await on.proxy.start()
            await on.state(State.ERROR, State.PROCESSING)
        other: Stage = await stage(**keys, configuration=path, executable=EXECUTABLE)
        await other.proxy.start()
        await other.state(State.ERROR)
        assert f"run {on.node.runId.value} answers there: end it" in other.node.status.value
        await refuse_what_is_not_the_image_due(on, expected)
        os.killpg(chain.pid, signal.SIGKILL)
        await on.state(State.ERROR)
        chain.end()
        chain = Program(EXECUTABLE, path)
        await on.state(State.PROCESSING)
        await on.source.send(expected["frames"][2], 5)
        await on.results(3)
        assert on.client.patterns().tobytes() == expected["patterns"][:3].tobytes()
        await on.stop()
    finally:
        chain.end()


async def test_the_tracker_anew_and_another_model(
    stage: Begin, configure: Any, expected: dict[str, Any], prepared: Path
) -> None:
    on: Stage = await stage(**configure(model="model"))
    await on.start()
    for i, frame in enumerate(expected["frames"]):
        await on.source.send(frame, i)
    n = len(expected["frames"])
    await on.results(n)
    await until(lambda: on.node.phase.value == "after")
    first = on.node.modelDigest.value
    assert list(on.node.classes.value) == ["before", "after"]
    assert on.client.column("label")[0] == 0
    assert on.client.column("label")[-1] == 1
    await on.proxy.resetTracker()
    await on.source.send(expected["frames"][0], n)
    await until(lambda: on.node.lastEvent.value.startswith(f"reset at {n} "))
    await until(lambda: on.node.phase.value == "before")

    with pytest.raises(KaraboError, match="set model first"):
        await on.proxy.loadModel()
    on.node.model = str(prepared / "nowhere")
    await on.proxy.loadModel()
    await on.state(State.PROCESSING)
    assert on.node.status.value.startswith("not loaded: ")
    assert "nowhere" in on.node.status.value
    on.node.model = str(prepared / "other")
    await on.proxy.loadModel()
    with pytest.raises(KaraboError, match="not allowed in state"):
        await on.proxy.loadModel()
    sent = n + 1
    while on.node.state == State.CHANGING:  # frames go on, and none is lost
        await on.source.send(expected["frames"][sent % n], sent)
        sent += 1
        await asyncio.sleep(0.02)
    assert on.node.state == State.PROCESSING, on.node.status
    await on.source.send(expected["frames"][5], sent)
    await on.results(sent + 1)
    assert on.client.column("trainId") == list(range(sent + 1))
    assert on.node.resultsMissed.value == 0
    assert on.node.modelDigest.value not in ("", first)
    assert on.node.framesDropped.value == 0
    assert on.client.column("seq")[-1] < n
    on.node.poni = str(prepared / "far.poni")  # good, but the model knows another axis
    await on.proxy.loadCalibration()
    await on.state(State.PROCESSING)
    assert on.node.status.value.startswith("not loaded: ")
    assert "axis: the patterns have" in on.node.status.value
    await on.stop()


async def test_wrong_addresses_and_files_are_one_line(stage: Begin, tmp_path: Path) -> None:
    for keys, text in (
        ({"control": "nonsense"}, "cannot connect nonsense"),
        ({"keys": str(tmp_path / "none")}, "no such folder"),
        ({"configuration": "x.toml", "executable": str(tmp_path / "none")}, "No such file"),
        ({"control": "tcp://127.0.0.1:9"}, "no answer within"),
    ):
        on: Stage = await stage(**keys)
        await on.proxy.start()
        await on.state(State.ERROR)
        assert text in on.node.status.value, on.node.status.value
        assert "\n" not in on.node.status.value
        await on.stop()
