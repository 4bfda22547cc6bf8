"""A real device server finds the device by its entry point, runs it and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from karabo.middlelayer import (
    EventLoop,
    Hash,
    State,
    connectDevice,
    getClasses,
    getDevices,
    getServers,
    instantiate,
    shutdown,
)
from nodes import HANG_S, until

PROGRAM = Path(sys.executable).with_name("karabo-middlelayerserver")
CLASS = "PhasewatchNode"


class Server:
    """A ``karabo-middlelayerserver``, and the processes that it started."""

    def __init__(self, folder: Path) -> None:
        (folder / "var" / "data").mkdir(parents=True)  # it works there
        self.id = f"TEST/SERVER/{uuid.uuid4().hex[:8]}"
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self.process = psutil.Popen(
                [PROGRAM, f"serverId={self.id}", f"deviceClasses={CLASS}"],
                env={**os.environ, "KARABO": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.started: list[psutil.Process] = []

    def online(self) -> bool:
        assert self.process.poll() is None, self._said.read_text()
        return self.id in getServers()

    def look(self) -> None:
        """Note what it has started."""
        self.started = self.process.children(recursive=True)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.look()
        for process in (self.process, *self.started):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([self.process, *self.started], HANG_S)


@pytest.fixture
def server(loop: EventLoop, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


async def test_a_device_server_runs_it_and_ends_it_with_its_chain(
    server: Server, configure: Any
) -> None:
    await until(server.online)
    assert getClasses(server.id) == [CLASS]
    name = server.id.replace("SERVER", "NODE")
    configuration = Hash(configure())
    assert await instantiate(server.id, CLASS, name, configuration) == name
    assert getDevices(server.id) == [name]
    assert await shutdown(name)
    await until(lambda: not getDevices(server.id))

    await instantiate(server.id, CLASS, name, configuration)
    with await connectDevice(name) as node:
        await until(lambda: node.state == State.PASSIVE)
        await node.start()
        await until(lambda: node.state in (State.PROCESSING, State.ERROR))
        assert node.state == State.PROCESSING, node.status
    server.look()
    assert server.started  # the chain
    server.process.send_signal(signal.SIGTERM)
    await until(lambda: server.process.poll() is not None)
    _, alive = psutil.wait_procs(server.started, timeout=10)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []  # nobody may reap orphans
    await until(lambda: server.id not in getServers())
    assert getDevices(server.id) == []
