"""A publisher that begins another run without having ended the first."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.messages import encode_batch, encode_start
from phasewatch.plugins.sources.zmq import ZmqSource


def start(run_id: str) -> RunStart:
    items = {"intensity": ItemSpec.of((3,), "f4")}
    axis = np.linspace(5.0, 20.0, 3)
    return RunStart(
        run_id=run_id, source="a:b", items=items, unit="2th_deg", constants={"axis": axis}
    )


def item(i: int) -> Batch:
    ids = np.array([i])
    return Batch(ids, ids, None, {"intensity": np.ones((1, 3), np.float32)})


@pytest.fixture
def publisher() -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.linger = 0
        socket.bind("tcp://127.0.0.1:*")
        yield socket


@pytest.fixture
def open_source(publisher: "zmq.Socket[bytes]") -> Iterator[Callable[..., ZmqSource]]:
    opened = []

    def connect(kind: str, idle: float | None, clock: Callable[[], float]) -> ZmqSource:
        address = publisher.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        opened.append(ZmqSource(address, kind, False, idle, clock))
        opened[-1].connect()
        assert publisher.recv() == b"\1"  # it is there
        return opened[-1]

    yield connect
    for source in opened:
        source.close()


def test_it_ends_the_run(
    publisher: "zmq.Socket[bytes]", open_source: Callable[..., ZmqSource]
) -> None:
    source = open_source("sub", None, lambda: 0.0)
    publisher.send_multipart(encode_start(start("one")))
    publisher.send_multipart(encode_batch("one", item(1)))
    publisher.send_multipart(encode_start(start("one")))  # repeated
    publisher.send_multipart(encode_batch("one", item(2)))
    publisher.send_multipart(encode_start(start("two")))
    publisher.send_multipart(encode_batch("two", item(3)))
    source.start()
    assert [i for b in source if b is not None for i in b.ids.tolist()] == [1, 2]


def test_messages_of_another_run_do_not_put_off_the_end(
    publisher: "zmq.Socket[bytes]", open_source: Callable[..., ZmqSource]
) -> None:
    ticks = itertools.count()
    source = open_source("sub", 50.0, lambda: float(next(ticks)))
    publisher.send_multipart(encode_start(start("one")))
    source.start()
    publisher.send_multipart(encode_batch("one", item(1)))
    found = []
    for got in source:
        found += [] if got is None else got.ids.tolist()
        publisher.send_multipart(encode_batch("two", item(9)))
    assert found == [1]
    assert source.refused.keys() == {"another run"}
