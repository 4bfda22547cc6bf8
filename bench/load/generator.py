"""The generator: a process of its own that announces items when they are due, come what may.

    python -m phasewatch.bench.load.generator FOLDER PARENT

It waits for the chain's `GO`, then follows the schedule without ever waiting for the chain (its
socket has no high-water mark: a message is 32 bytes an item). ``single-stream`` is the exception by
its nature: the next item is due when the last was answered. At the end it writes ``times.npy``,
(2, n) int64 ns: when each item was due, and when it was announced; no such file means that an item
was not answered for 30 s. It ends early when PARENT, a process id, is no longer its parent.
"""

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.plan import DONE, END, GO, TIMES, Load, address
from phasewatch.bench.load.schedule import wait_until
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.raw_socket import RawSocket

LEAD_NS = 10_000_000  # from when all listen to the first item
BLOCK = 4096  # rows of one message at most
UNANSWERED_MS = 30_000
Clock = Callable[[], int]
Send = Callable[[bytes], object]


def main(folder: Path, parent: int) -> int:
    """Generate the load of `folder`; return 0 where the chain came to listen."""
    load = Load.read(folder)
    with (
        RawSocket("push", address(folder, "announce"), bind=True) as out,
        RawSocket("pull", address(folder, "back"), bind=True) as back,
    ):

        def heard(wanted: bytes) -> bool:
            while os.getppid() == parent:
                if back.receive(timeout_ms=500) == [wanted]:
                    return True
            return False

        def send(message: bytes) -> None:
            if not out.offer([message]):
                raise PipelineError("load generator: the source has gone")

        times = np.zeros((2, load.n), np.int64)
        schedule = load.offsets()
        if not heard(GO):
            return 1
        while not out.writable(timeout_ms=500):  # each socket connects in its own time
            if os.getppid() != parent:
                return 1
        if load.scenario == "single-stream":
            whole = one_by_one(load, times, send, lambda: back.receive(UNANSWERED_MS) is not None)
        else:
            whole = True
            schedule += time.monotonic_ns() + LEAD_NS
            follow(load, schedule, times, send)
        send(END)
        if whole:
            np.save(folder / f"new-{TIMES}", times)
            (folder / f"new-{TIMES}").rename(folder / TIMES)
        heard(DONE)
    return 0


def follow(
    load: Load,
    due: NDArray[np.int64],
    times: NDArray[np.int64],
    send: Send,
    *,
    clock: Clock = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Announce each item when it is due, those that are due together in one message.

    Parameters
    ----------
    due
        (n,) ns, ascending.
    times
        (2, n), filled with when each was due and announced.
    """
    done = 0
    while done < load.n:
        now = wait_until(int(due[done]), clock=clock, sleep=sleep)
        until = min(int(np.searchsorted(due, now, side="right")), done + BLOCK)
        send(rows(load, done, due[done:until], now))
        times[0, done:until], times[1, done:until] = due[done:until], now
        done = until


def one_by_one(
    load: Load,
    times: NDArray[np.int64],
    send: Send,
    answered: Callable[[], bool],
    *,
    clock: Clock = time.monotonic_ns,
) -> bool:
    """Announce the next item when the last is answered; return False where one never was."""
    for k in range(load.n):
        now = clock()
        send(rows(load, k, np.array([now]), now))
        times[:, k] = now
        if not answered():
            return False
    return True


def rows(load: Load, first: int, due: NDArray[np.int64], now: int) -> bytes:
    """Return the rows (id, due, index, sent) of the items from `first` on as bytes."""
    block = np.empty((len(due), 4), np.int64)
    block[:, 0] = np.arange(first, first + len(due))
    block[:, 1] = due
    block[:, 2] = block[:, 0] % load.stored
    block[:, 3] = now
    return block.tobytes()


if __name__ == "__main__":
    gc.disable()  # a collection would make items late
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
