"""A real Karabo bridge, and reading from it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from karabo_bridge import ServerInThread

from phasewatch.pipeline.batch import Failure
from phasewatch.pipeline.plugin import Source
from phasewatch.plugins.sources.stream import Stream

DETECTOR = "X/DET/LAMBDA:out"
SERVERS = {"REQ": "REP", "PULL": "PUSH", "SUB": "PUB"}


def image(train: int, shape: tuple[int, ...] = (4, 6)) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) + 7 * train).astype(np.uint16)


def fed(
    train: int, value: Any = None, source: str = DETECTOR, key: str = "image.data", **metadata: Any
) -> tuple[Any, Any]:
    """Return data and metadata of a train."""
    values = {key: image(train) if value is None else value, "header": "x"}
    return {source: values}, {source: {"source": source, "timestamp.tid": train} | metadata}


@contextmanager
def serving(
    trains: Iterable[tuple[Any, Any]] = (), endpoint: str = "tcp://127.0.0.1:0", **options: Any
) -> Iterator[ServerInThread]:
    """Run a server that is given `trains`."""
    server = ServerInThread(endpoint, maxlen=1000, **options)
    for data, metadata in trains:
        server.feed(data, metadata)
    server.start()
    try:
        yield server
    finally:
        server.stop()


Item = tuple[int, Any]  # id, and the frame or why there is none


def take(source: Source, n: int = 1 << 30) -> list[Item]:
    """Return the next `n` items; a run without an end is left there."""
    found: list[Item] = []
    for item in source:
        if isinstance(item, Failure):
            found.append((item.id, item.error))
        elif item is not None:
            found += zip(item.ids.tolist(), item.arrays["frame"].copy(), strict=True)
        if len(found) >= n:
            break
    return found


def numbers(items: list[Item]) -> list[int]:
    return [n for n, _ in items]


def idle(source: Stream, after: int = 0) -> None:
    """Have `source` find that nothing came for long, once `after` messages came and no more did."""
    receive, source._idle_timeout_s = source._feed.receive, 60.0
    now, came = [0.0], [0]

    def received(timeout_ms: int) -> Any:
        message = receive(timeout_ms)
        came[0] += message is not None
        now[0] += 100.0 * (message is None and came[0] >= after)
        return message

    source._feed.receive = received
    source._clock = lambda: now[0]
