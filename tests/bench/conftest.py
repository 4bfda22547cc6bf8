"""Nothing that a load needs is left behind: no process, thread, socket or shared memory."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils import garbage

SHARED_MEMORY = Path("/dev/shm")


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def _contexts() -> int:
    gc.collect(0)
    made = [o for o in gc.get_objects() if type(o) is zmq.Context and not o.closed]
    return sum(1 for o in made if o is not garbage.gc._context)


def _shared() -> set[str]:
    return {p.name for p in SHARED_MEMORY.glob("*") if p.name.startswith("phasewatch")}


@pytest.fixture
def clean_host() -> Iterator[None]:
    """Fails a test that leaves a process, a thread, a ZeroMQ context or shared memory behind."""
    children, threads = _children(), set(threading.enumerate())
    contexts, shared = _contexts(), _shared()
    yield
    assert _children() <= children, "a child process is left"
    left = [t for t in threading.enumerate() if t not in threads]
    for thread in left:
        thread.join(10)  # a progress bar of rich has told its thread to end, and not waited for it
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads are left: {left}"
    assert _contexts() <= contexts, "a ZeroMQ context is left open"
    assert _shared() <= shared, "shared memory is left"
