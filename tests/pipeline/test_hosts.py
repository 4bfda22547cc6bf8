"""Workers of other hosts, over tcp with keys: they join a run, leave it, and die, without loss."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.transport.keys import Keys, write_keys
from phasewatch.pipeline.transport.links import Transport

pytestmark = [pytest.mark.usefixtures("thirdparty"), pytest.mark.timeout(240)]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What the sink waits at: while workers start, nothing else takes their time."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def opened(gate: Path) -> bool:
    """Let the sink go on; return whether it was at the gate already."""
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


@pytest.fixture
def config(listen: str, gate: Path, tmp_path: Path) -> Config:
    write_keys(tmp_path / "keys")
    tables: dict[str, Any] = {
        "source": {"uri": "ramp:1", "endless": True},
        "reduce": {"baseline": {"method": "asls", "lam": 1e3}},
        "runtime": {
            "listen": listen,
            "keys": "keys",
            "ring": 64,
            "resend_s": 0.5,
        },
        "sink": [{"type": "lines", "path": "lines.json", "gate": str(gate), "gate_at": 20}],
    }
    return parse_config(tables, name="test", folder=tmp_path)


class Workers:
    """Processes ``phasewatch worker`` for one run."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, keys: str | None) -> None:
        code = "import sys; from phasewatch.pipeline.cli import main; sys.exit(main())"
        options = ["--connect", str(self._config.runtime.listen)]
        options += ["--keys", keys] if keys else []
        self.processes.append(
            subprocess.Popen([sys.executable, "-c", code, "worker", *options], cwd="/")
        )

    def names(self, view: View) -> dict[int, dict[str, Any]]:
        """Return by position the last health of those that have reported."""
        known = {role: h for role, h in view.book.histories.items() if "@" in role}
        pids = {f"-{process.pid}": i for i, process in enumerate(self.processes)}
        return {
            i: dict(history[-1].data)
            for role, history in known.items()
            for end, i in pids.items()
            if role.endswith(end)
        }


@pytest.fixture
def workers(config: Config) -> Iterator[Workers]:
    workers = Workers(config)
    yield workers
    for process in workers.processes:
        process.kill()
        process.wait()


def stop(view: View, keys: Keys) -> None:
    with Transport(linger_s=5, keys=keys) as transport:
        link = transport.link("dealer", view.control, bind=False)
        link.send(encode(ControlBody(what="stop")))


def test_workers_join_leave_and_die_without_loss(
    config: Config, workers: Workers, gate: Path, tmp_path: Path
) -> None:
    keys = Keys.load(tmp_path / "keys")
    state = {"step": "begin"}
    at_leave: list[int] = []

    def update(view: View) -> None:
        written = view.health.get("sink", {}).get("written", 0)
        done = {i: h.get("done", 0) for i, h in workers.names(view).items()}
        received = view.health.get("receiver", {}).get("received", 0)
        if state["step"] == "begin" and received:
            workers.start(keys=str(tmp_path / "keys"))
            workers.start(keys=str(tmp_path / "keys"))
            workers.start(keys=None)  # a stranger: nobody hears it
            state["step"] = "starting"
        elif state["step"] == "starting" and {0, 1} <= done.keys() and opened(gate):
            state["step"] = "joining"
        elif state["step"] == "joining" and min(done.get(0, 0), done.get(1, 0)) > 50:
            workers.processes[0].send_signal(signal.SIGINT)
            workers.processes[1].send_signal(signal.SIGKILL)
            at_leave.append(written)
            state["step"] = "leaving"
        elif state["step"] == "leaving" and written > at_leave[0] + 300:
            state["step"] = "over"
            assert 2 not in done
            stop(view, keys)

    outcome = supervise(config, on_update=update)
    assert outcome.error is None
    assert outcome.stop is not None
    loss = outcome.stop.loss
    assert (loss.failed, loss.dropped, loss.missed) == (0, {}, 0)
    assert loss.received == loss.classified
    lines = (tmp_path / "lines.json").read_text().splitlines()
    assert sum('"seq"' in line for line in lines) == loss.received
    assert workers.processes[0].wait(60) == 0
    assert workers.processes[1].wait(60) == -signal.SIGKILL


def test_a_worker_ends_with_the_run_it_waited_for(
    config: Config, workers: Workers, gate: Path, tmp_path: Path
) -> None:
    keys = Keys.load(tmp_path / "keys")
    workers.start(keys=str(tmp_path / "keys"))  # before the run
    joined, asked = [], []

    def update(view: View) -> None:
        if not joined and 0 in workers.names(view) and opened(gate):
            joined.append(True)
        if workers.names(view).get(0, {}).get("done", 0) > 0 and not asked:
            asked.append(True)
            stop(view, keys)

    outcome = supervise(config, on_update=update)
    assert outcome.error is None
    assert workers.processes[0].wait(60) == 0


def test_another_host_is_not_let_in_without_keys(config: Config) -> None:
    listen = f"tcp://{os.uname().nodename}:5555"
    runtime = config.runtime.model_copy(update={"keys": None, "listen": listen})
    with pytest.raises(PipelineError, match="without keys sockets bind to loopback only"):
        supervise(config.model_copy(update={"runtime": runtime}))
