"""A broker, a chain, a source device and a client device; all of it real."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import iscoroutinefunction, signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiormq.exceptions import ChannelInvalidStateError
from broker import broker as run_broker
from broker import free_ports

PORT = free_ports(1)[0]
os.environ["KARABO_BROKER"] = f"amqp://guest:guest@127.0.0.1:{PORT}"
os.environ["KARABO_BROKER_TOPIC"] = f"phasewatch-{os.getpid()}"

from karabo.middlelayer import EventLoop  # noqa: E402
from karabo.middlelayer.testing import KaraboTestLoopPolicy  # noqa: E402
from nodes import Stage  # noqa: E402

EXECUTABLE = os.environ.get("PHASEWATCH", "phasewatch")  # of the environment of the chain
CONFIG = """
[source]
uri = "zmq:{frames}"
bind = true
[calibration]
poni = "L.poni"
[reduce]
n_bins = 64
baseline = {{method = "asls", lam = 1e3}}
{classifier}
[runtime]
control = "{control}"
[[sink]]
type = "zmq"
address = "{results}"
wait_for = 1
"""


@pytest.fixture(scope="session")
def broker() -> Iterator[None]:
    with run_broker(PORT):
        yield


@pytest.fixture(scope="session")
def loop(broker: None) -> Iterator[EventLoop]:
    """The one loop of all tests, connected; pytest-asyncio's runner waits for Karabo's for ever."""
    loop = KaraboTestLoopPolicy().new_event_loop()
    yield loop
    # Karabo's own client takes its leave, which fails where the broker has closed its channel.
    with suppress(ChannelInvalidStateError):
        loop.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine on that loop."""
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    loop = pyfuncitem.funcargs["loop"]
    arguments = {name: pyfuncitem.funcargs[name] for name in signature(pyfuncitem.obj).parameters}
    test = loop.create_task(pyfuncitem.obj(**arguments), instance=loop.lead)
    loop.run_until_complete(test)
    return True


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames, what is expected of them, a geometry and models."""
    folder = tmp_path_factory.mktemp("prepared")
    python = Path(EXECUTABLE).with_name("python")
    script = Path(__file__).with_name("prepare.py")
    subprocess.run([python, script, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def expected(prepared: Path) -> dict[str, Any]:
    with np.load(prepared / "expected.npz") as file:
        return dict(file)


@pytest.fixture
def configure(prepared: Path) -> Callable[..., dict[str, str]]:
    """Return a function that writes a configuration and gives the keys of the device for it."""

    def write(*, model: str = "", own: bool = True) -> dict[str, str]:
        control, frames, results = (f"tcp://127.0.0.1:{p}" for p in free_ports(3))
        addresses = {"control": control, "frames": frames, "results": results}
        classifier = f'[classifier]\nmodel = "{model}"\nown_process = false\n' if model else ""
        path = prepared / f"run-{control.rpartition(':')[2]}.toml"
        path.write_text(CONFIG.format(classifier=classifier, **addresses))
        keys = {"configuration": str(path), "executable": EXECUTABLE}
        return {**addresses, **keys} if own else {**addresses, "path": str(path)}

    return write


@pytest.fixture
def stage(loop: EventLoop) -> Iterator[Callable[..., Any]]:
    """Return a coroutine that puts a source, a node and a client on the stage."""
    stages: list[Stage] = []

    async def begin(**keys: Any) -> Stage:
        stages.append(stage := Stage(**keys))
        await stage.begin()
        return stage

    yield begin
    for stage in stages:
        loop.run_until_complete(loop.create_task(stage.end(), instance=loop.lead))
