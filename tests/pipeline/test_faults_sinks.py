"""Slow sinks under each policy, sinks that hang, full and read-only disks, idle consumers."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zmq

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.bodies import ControlBody, CreditBody
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes import outlets
from phasewatch.pipeline.processes.outlets import QUEUE, Outlet, Policy
from phasewatch.pipeline.processes.supervisor import supervise

pytestmark = pytest.mark.timeout(120)


class Slow:
    """A sink that takes what is `allowed`; it says when it has begun with a call."""

    def __init__(self) -> None:
        self.took: list[int] = []
        self.allowed, self.began = threading.Semaphore(0), threading.Semaphore(0)
        self.closed = 0

    def batch(self, batch: Batch) -> None:
        self.began.release()
        self.allowed.acquire()
        if batch.seq[0] == 999:
            raise OSError("the disk is gone")
        self.took += batch.seq.tolist()

    def stop(self, stop: Any) -> None:
        self.took.append(-1)

    def close(self) -> None:
        self.closed += 1


def one(seq: int) -> Batch:
    i = np.array([seq])
    return Batch(i, i)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    sink = Slow()
    yield sink
    sink.allowed.release(1000)
    for thread in threading.enumerate():
        if thread.name == "outlet":
            thread.join()


def stop(sink: Any) -> None:
    sink.stop(None)


@pytest.mark.parametrize(
    ("policy", "kept"), [("queueDrop", range(36, 100)), ("drop", range(1, 1 + QUEUE))]
)
def test_which_items_a_slow_sink_is_not_given(slow: Slow, policy: Policy, kept: range) -> None:
    outlet = Outlet(slow, policy)
    outlet.batch(one(0))
    slow.began.acquire()  # it hangs in the first
    for seq in range(1, 100):
        outlet.batch(one(seq))
    outlet.give(stop)
    assert outlet.dropped == 99 - QUEUE
    slow.allowed.release(1000)
    outlet.close()
    assert slow.took == [0, *kept, -1]
    assert slow.closed == 1


def test_who_waits_is_given_everything(slow: Slow) -> None:
    outlet = Outlet(slow, "wait")
    slow.allowed.release(100)
    for seq in range(100):
        outlet.batch(one(seq))
    outlet.give(stop)
    outlet.close()
    assert (slow.took, outlet.dropped, slow.closed) == ([*range(100), -1], 0, 1)


def test_a_sink_that_never_returns_is_left(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "CLOSE_S", 0.01)
    outlet = Outlet(slow, "queueDrop")
    for seq in range(10):
        outlet.batch(one(seq))
    slow.began.acquire()
    outlet.close()
    assert (outlet.dropped, slow.closed) == (9, 0)


@pytest.mark.parametrize("policy", ["queueDrop", "drop"])
def test_what_a_slow_sink_raises_is_told(slow: Slow, policy: Policy) -> None:
    outlet = Outlet(slow, policy)
    outlet.batch(one(999))
    slow.allowed.release(1000)
    with pytest.raises(OSError, match="the disk is gone"):
        outlet.close()
    assert slow.closed == 1


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_a_sink_that_is_waited_for_stops_the_run_and_loses_nothing(
    ramps: Any, play: Any, gate: Path
) -> None:
    """Also where the tracker dies meanwhile: of what it had sent, nothing counts twice."""
    sink = {"type": "lines", "path": "lines.json", "gate": str(gate), "gate_at": 50}
    config = ramps.configure(sink=[sink])

    def act(run: Any) -> Any:
        yield from run.until(lambda: run.number("receiver", "in_flight") == 64)
        received = 0
        while received != run.number("receiver", "received"):  # the same in five reports
            received = run.number("receiver", "received")
            yield from run.heard("receiver", 5)
        assert run.number("receiver", "in_flight") == 64
        assert received <= 50 + 64 * 2
        assert run.number("receiver", "resent") == 0
        yield from run.kill("tracker")
        yield from run.heard("tracker", 2)
        yield from run.heard("receiver", 5)
        yield from run.open_gate(gate)
        yield from run.progress(200)

    played = play(act)
    outcome = ramps.run(config, played)
    assert played.view.book.restarts == {"tracker": 1}
    ramps.check_whole(config, outcome)
    # Once when the tracker died, and what was overdue when the sinks were heard again.
    assert played.most["receiver", "resent"] <= 4 * 64


def test_slow_sinks_that_may_miss_items_hold_up_nobody(
    ramps: Any, play: Any, gate: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    never = gate.with_name("never")
    os.mkfifo(never)
    slow = {"type": "lines", "gate_at": 5, "policy": "queueDrop"}
    config = ramps.configure(
        sink=[
            {"type": "lines", "path": "lines.json"},
            {**slow, "path": "queue.json", "gate": str(gate)},
            {**slow, "path": "drop.json", "gate": str(never), "policy": "drop"},
        ]
    )

    def act(run: Any) -> Any:
        yield from run.until(lambda: run.number("sink", "dropped") > 1000)
        yield from run.open_gate(gate)
        yield from run.progress(100)

    played = play(act)
    outcome = ramps.run(config, played)
    ramps.check_whole(config, outcome)
    whole, some, few = (ramps.items(name) for name in ("lines.json", "queue.json", "drop.json"))
    assert 5 < len(some) < len(whole)
    assert [d for d in whole if d["seq"] in {d["seq"] for d in some}] == some
    assert some[-1] == whole[-1]
    assert ramps.lines("queue.json")[-1]["stop"]["reason"] == "stopped by request"
    assert few == whole[:5]
    said = [line for line in capfd.readouterr().err.splitlines() if "missed items" in line]
    missed = {"queueDrop": len(whole) - len(some), "drop": len(whole) - len(few)}
    for policy, line in zip(("drop", "queueDrop"), said, strict=True):
        counted = int(line.partition("items=")[2].split()[0])
        # Of the batch in which it hangs nobody knows how much it has taken.
        assert missed[policy] - (64 if policy == "drop" else 0) <= counted <= missed[policy]
        assert f"hangs={policy == 'drop'}" in line


CONFIG = """
[source]
uri = "ramp:{n}"
size = 50
[reduce]
baseline = {{method = "none"}}
[[sink]]
type = "nexus"
path = "{path}"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small disk of its own, which can be made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("a disk of its own needs the right to mount")

    def make(options: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
        return folder

    yield make
    subprocess.run(["umount", "-l", str(folder)], check=True)


def command(folder: Path, n: int, result: Path) -> "subprocess.CompletedProcess[str]":
    (folder / "run.toml").write_text(CONFIG.format(n=n, path=result))
    code = "import sys; from phasewatch.pipeline.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "run", str(folder / "run.toml")],
        capture_output=True,
        text=True,
    )


def last_word(ended: "subprocess.CompletedProcess[str]") -> str:
    """Return the one line by which the command failed."""
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("phasewatch: ")]
    return line


def test_a_disk_that_fills_up(ramps: Any, disk: Callable[[str], Path], tmp_path: Path) -> None:
    folder = disk("rw")
    result = folder / "result.nxs"
    (folder / "ballast").write_bytes(bytes((3 << 20) + (512 << 10)))  # 0.5 MiB before the reserve
    ended = command(tmp_path, 100_000, result)
    assert ended.returncode != 0
    line = last_word(ended)
    assert "its disk is full" in line
    assert str(result) in line
    assert "Traceback" not in ended.stderr
    with h5py.File(result) as file:
        intensity = file["entry/patterns/intensity"]
        assert 0 < len(intensity) < 100_000
        assert np.isfinite(intensity[()]).all()
        assert (file["entry/frame/seq"][()] == np.arange(len(intensity))).all()


def test_a_folder_that_is_read_only(
    ramps: Any, disk: Callable[[str], Path], tmp_path: Path
) -> None:
    result = disk("ro") / "result.nxs"
    ended = command(tmp_path, 100, result)
    assert ended.returncode != 0
    line = last_word(ended)
    assert str(result) in line
    assert "Read-only file system" in line
    assert "Traceback" not in ended.stderr


def test_consumers_that_never_read(ramps: Any, play: Any, tmp_path: Path) -> None:
    """A subscriber, a status client, and a worker that asks for all there is."""
    address = f"ipc://{tmp_path}/published"
    published = {"type": "zmq", "address": address, "wait_for": 1}
    config = ramps.configure(sink=[{"type": "lines", "path": "lines.json"}, published])

    def act(run: Any) -> Any:
        yield from run.progress(100)
        [work] = Path(os.environ["TMPDIR"]).glob("phasewatch-*/work")
        status.connect(run.view.control)
        worker.connect(f"ipc://{work}")
        for _ in range(3):
            worker.send_multipart(encode(CreditBody(n=1024)))
            for _ in range(20):
                if status.poll(0, zmq.POLLOUT):
                    status.send_multipart(encode(ControlBody(what="status")))
            yield from run.progress(500)

    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as subscriber,
        context.socket(zmq.DEALER) as status,
        context.socket(zmq.DEALER) as worker,
    ):
        for socket in (subscriber, status, worker):
            socket.linger, socket.rcvhwm = 0, 1
        subscriber.connect(address)
        subscriber.subscribe(b"")
        played = play(act)
        outcome = ramps.run(config, played)
    ramps.check_whole(config, outcome)
    assert outcome.stop.loss.received > 1600
    assert played.view.book.restarts == {}


def test_a_sink_that_is_killed_ends_the_run(ramps: Any, play: Any) -> None:
    """What is not survived: with the sinks goes the only record of what they had taken."""

    def act(run: Any) -> Any:
        yield from run.progress(50)
        yield from run.signal("sink", signal.SIGKILL)

    played = play(act, stop=False)
    outcome = supervise(ramps.configure(), on_update=played, on_start=played.start)
    assert outcome.error == "sink ended unexpectedly (exit code -9)"
    found = [d["seq"] for d in ramps.items()]
    assert found == list(range(len(found)))
