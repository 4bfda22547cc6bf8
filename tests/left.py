"""What a process has open: child processes and ZeroMQ contexts."""

import gc
import os
from contextlib import suppress
from pathlib import Path

import zmq
from zmq.utils import garbage


def children() -> set[str]:
    """Return the process ids of our children, whichever thread started them."""
    found: set[str] = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found.update((task / "children").read_text().split())
    return found


def contexts() -> int:
    """Return how many ZeroMQ contexts are open."""
    gc.collect(0)
    made = [o for o in gc.get_objects() if type(o) is zmq.Context and not o.closed]
    return sum(1 for o in made if o is not garbage.gc._context)  # pyzmq's own, for zero-copy sends
