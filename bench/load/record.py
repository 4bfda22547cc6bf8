"""Records what comes from an address, whatever it is, and replays it to one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from phasewatch.bench.load.wire_file import (
    WireMessage,
    read_messages,
    size_of,
    write_head,
    write_message,
)
from phasewatch.plugins.raw_socket import RawSocket

POLL_MS = 100
Clock = Callable[[], int]


def record(
    socket: RawSocket,
    path: Path,
    *,
    messages: int | None = None,
    max_bytes: int | None = None,
    seconds: float | None = None,
    progress: Callable[[int, int], None] = lambda messages, nbytes: None,
    clock: Clock = time.monotonic_ns,
) -> tuple[int, int]:
    """Write every message that comes from `socket` to `path`, until a limit or Ctrl-C.

    Returns
    -------
    tuple
        Number of messages, and of bytes.
    """
    done = nbytes = 0
    end = None if seconds is None else clock() + int(seconds * 1e9)
    with path.open("wb") as file:
        write_head(file)
        try:
            while (messages is None or done < messages) and (end is None or clock() < end):
                parts = socket.receive(POLL_MS)
                if parts is None:
                    file.flush()  # what came is on disk while nothing comes
                    progress(done, nbytes)
                    continue
                if max_bytes is not None and nbytes + size_of(parts) > max_bytes:
                    break
                write_message(file, clock(), parts)
                done, nbytes = done + 1, nbytes + size_of(parts)
        except KeyboardInterrupt:
            pass  # how a recording without limits ends
    progress(done, nbytes)
    return done, nbytes


def paced(
    messages: Iterator[WireMessage],
    speed: float,
    stopped: Event,
    clock: Clock = time.monotonic_ns,
) -> Iterator[WireMessage]:
    """Yield `messages` at the intervals at which they came, divided by `speed`; 0: at once."""
    begin = first = None
    for message in messages:
        if begin is None or first is None:
            begin, first = clock(), message.arrival_ns
        if speed > 0:
            due = begin + (message.arrival_ns - first) / speed
            stopped.wait(max(0.0, (due - clock()) / 1e9))
        if stopped.is_set():
            return
        yield message


def feed(path: Path, socket: RawSocket, *, speed: float, stopped: Event) -> int:
    """Send what was recorded in `path`, waiting while `socket` is full; return how many."""
    done = 0
    for message in paced(read_messages(path), speed, stopped):
        while not socket.offer(message.parts):
            if stopped.is_set():
                return done
            socket.writable(POLL_MS)
        done += 1
    return done
