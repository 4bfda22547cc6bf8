"""Nothing that a load needs is left behind: no process, thread, socket or shared memory."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..left import children, contexts

SHARED_MEMORY = Path("/dev/shm")


def _shared() -> set[str]:
    return {p.name for p in SHARED_MEMORY.glob("*") if p.name.startswith("phasewatch")}


@pytest.fixture
def clean_host() -> Iterator[None]:
    """Fails a test that leaves a process, a thread, a ZeroMQ context or shared memory behind."""
    processes, threads = children(), set(threading.enumerate())
    n_contexts, shared = contexts(), _shared()
    yield
    assert children() <= processes, "a child process is left"
    left = [t for t in threading.enumerate() if t not in threads]
    for thread in left:
        thread.join(10)  # a progress bar of rich has told its thread to end, and not waited for it
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads are left: {left}"
    assert contexts() <= n_contexts, "a ZeroMQ context is left open"
    assert _shared() <= shared, "shared memory is left"
