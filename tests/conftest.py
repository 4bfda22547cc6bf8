"""Fixtures shared by all tests."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import settings
from zmq.utils import garbage

# No test depends on wall-clock time; and what lands is decided by the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    root = Path(__file__).parents[1]
    path = Path(os.environ.get("PHASEWATCH_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("the real data are not here: set PHASEWATCH_DATA to their folder")
    return path


@pytest.fixture(autouse=True)
def no_kept_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep integration plans out of the user's cache."""
    monkeypatch.setenv("PHASEWATCH_CACHE", "")


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def _contexts() -> int:
    gc.collect(0)
    made = [o for o in gc.get_objects() if type(o) is zmq.Context and not o.closed]
    return sum(1 for o in made if o is not garbage.gc._context)  # pyzmq's own, for zero-copy sends


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a process, a thread or a ZeroMQ context behind."""
    folder = request.path.parent.name
    if folder not in ("pipeline", "plugins"):
        yield
        return
    children, threads = _children(), set(threading.enumerate())
    contexts = _contexts()
    yield
    assert _children() <= children, "a child process is left"
    left = [t for t in threading.enumerate() if t not in threads and not t.daemon]
    assert not left, f"threads are left: {left}"
    assert _contexts() <= contexts, "a ZeroMQ context is left open"
