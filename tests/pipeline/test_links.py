"""Links: a hostile peer is counted, and the next good message comes through."""

from collections.abc import Iterator

import msgpack
import pytest
import zmq
from structlog.testing import capture_logs

from phasewatch.pipeline.bodies import AckBody, ControlBody, CreditBody
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import Message, encode
from phasewatch.pipeline.transport.links import Kind, Link, Transport, check_bind
from phasewatch.pipeline.transport.request import Caller

GARBAGE = [
    [b""],
    [b"\xff" * 100],
    [b"\x81\xa1v\x02"],
    [*encode(CreditBody(n=1)), b"extra"],
    [b"\x80", b"", b""],
]


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(linger_s=0)
    yield transport
    transport.close()


def next_good(transport: Transport, link: Link) -> tuple[bytes, Message]:
    for _ in range(100):
        if transport.poll([link], 1000) and (received := link.receive()) is not None:
            return received
    raise AssertionError("no good message came")


@pytest.mark.parametrize(("ours", "theirs"), [("pull", zmq.PUSH), ("router", zmq.DEALER)])
def test_later_good_data_come_through(transport: Transport, ours: Kind, theirs: int) -> None:
    link = transport.link(ours, "tcp://127.0.0.1:0", bind=True)
    with zmq.Context() as context, context.socket(theirs) as peer:
        peer.linger = 0
        peer.connect(link.address)
        for parts in GARBAGE:
            peer.send_multipart(parts)
        peer.send_multipart(encode(AckBody(run_id="r", seq=4)))
        _, message = next_good(transport, link)
        assert message.body == AckBody(run_id="r", seq=4)
        assert link.rejected == len(GARBAGE)
        assert link.last_error


def test_draining_takes_what_there_is_and_never_more_than_asked(transport: Transport) -> None:
    link = transport.link("pull", "tcp://127.0.0.1:0", bind=True)
    with zmq.Context() as context, context.socket(zmq.PUSH) as peer:
        peer.linger = 0
        peer.connect(link.address)
        for seq in range(3):
            peer.send_multipart(GARBAGE[seq])
            peer.send_multipart(encode(AckBody(run_id="r", seq=seq)))
        taken: list[object] = []
        while len(taken) < 3:
            assert transport.poll([link], 5000)
            some = [message.body for _, message in link.drain(2)]
            assert len(some) <= 1  # of two messages one is not ours
            taken += some
        assert taken == [AckBody(run_id="r", seq=seq) for seq in range(3)]
        assert link.rejected == 3
        assert list(link.drain(2)) == []


def logged(transport: Transport, bad: list[list[bytes]]) -> list[int]:
    """Return the counts at which refusing `bad` was logged."""
    link = transport.link("pull", "tcp://127.0.0.1:0", bind=True)
    with zmq.Context() as context, context.socket(zmq.PUSH) as peer, capture_logs() as logs:
        peer.linger = 0
        peer.connect(link.address)
        for parts in [*bad, encode(AckBody(run_id="r", seq=4))]:
            peer.send_multipart(parts)
        next_good(transport, link)
    assert link.rejected == len(bad)
    assert [line["link"] for line in logs] == [link.address] * len(logs)
    return [line["count"] for line in logs]


def test_the_first_refusal_of_each_kind_is_logged(transport: Transport) -> None:
    header = msgpack.unpackb(encode(AckBody(run_id="r", seq=4))[0])
    numbers = [[msgpack.packb({"v": 2 + n})] for n in range(5)]
    huge = [msgpack.packb({**header, "arrays": [["seq", "<i8", [1 << 28]]]}), b""]
    names = [
        [msgpack.packb({**header, "arrays": [[name, "|O8", [1]]]}), b""]
        for name in ("x", "it's", "a 'b' c", "\"'\\")
    ]
    truncated = [msgpack.packb(header)[:-9]]
    assert logged(transport, [*numbers, huge, *names, huge, truncated, truncated]) == [
        *(1, 2, 4),  # versions differ in a number
        6,  # two gigabytes
        *(7, 8),  # a dtype; the name is the peer's
        12,  # truncated
    ]


def test_kinds_made_up_by_a_peer_are_logged_up_to_a_limit(transport: Transport) -> None:
    header = msgpack.unpackb(encode(AckBody(run_id="r", seq=4))[0])
    made_up = [[msgpack.packb({**header, "x" * n: 1})] for n in range(1, 71)]
    assert logged(transport, made_up) == [*range(1, 33), 64]


def test_a_long_error_is_cut(transport: Transport) -> None:
    header = msgpack.unpackb(encode(AckBody(run_id="r", seq=4))[0])
    link = transport.link("pull", "tcp://127.0.0.1:0", bind=True)
    with zmq.Context() as context, context.socket(zmq.PUSH) as peer:
        peer.linger = 0
        peer.connect(link.address)
        peer.send_multipart(
            [msgpack.packb({**header, "arrays": [["x" * 500_000, "|O8", [1]]]}), b""]
        )
        peer.send_multipart(encode(AckBody(run_id="r", seq=4)))
        next_good(transport, link)
    assert len(link.last_error) == 500


def test_who_subscribes_and_who_goes(transport: Transport) -> None:
    link = transport.link("xpub", "tcp://127.0.0.1:0", bind=True)
    assert list(link.subscriptions()) == []
    with zmq.Context() as context:
        for _ in range(2):
            with context.socket(zmq.SUB) as first, context.socket(zmq.XSUB) as second:
                seen: list[bool] = []
                first.subscribe(b"")
                first.connect(link.address)
                second.connect(link.address)
                second.send(b"\1")
                second.send(b"made up")
                while len(seen) < 2:
                    assert transport.poll([link], 1000) == [link]
                    seen += link.subscriptions()
                assert seen == [True, True]
            while len(seen) < 4:
                assert transport.poll([link], 1000) == [link]
                seen += link.subscriptions()
            assert seen[2:] == [False, False]


def test_an_oversized_part_is_refused_by_the_socket(transport: Transport) -> None:
    link = transport.link("pull", "tcp://127.0.0.1:0", bind=True)
    assert link.socket.getsockopt(zmq.MAXMSGSIZE) == 1 << 28


@pytest.mark.parametrize(
    "address",
    [
        "tcp://*:5555",
        "tcp://0.0.0.0:0",
        "tcp://192.0.2.1:5555",
        "tcp://host.example:1",
        "udp://x:1",
    ],
)
def test_a_public_bind_is_refused(transport: Transport, address: str) -> None:
    with pytest.raises(PipelineError, match="loopback"):
        transport.link("pull", address, bind=True)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:0", "tcp://[::1]:0", "ipc:///x", "inproc://x"]
)
def test_loopback_is_not_public(address: str) -> None:
    check_bind(address)


def test_an_address_in_use_is_one_line(transport: Transport) -> None:
    link = transport.link("pull", "tcp://127.0.0.1:0", bind=True)
    with pytest.raises(PipelineError, match=f"cannot bind {link.address}: Address"):
        transport.link("pull", link.address, bind=True)
    with pytest.raises(PipelineError, match="cannot connect nonsense"):
        transport.link("push", "nonsense", bind=False)


def test_a_thread_can_end_a_wait(transport: Transport) -> None:
    wakeup = transport.wakeup()
    assert transport.poll([wakeup], 0) == []
    wakeup.set()
    wakeup.set()
    assert transport.poll([wakeup], 1000) == [wakeup]
    wakeup.clear()
    wakeup.clear()
    assert transport.poll([wakeup], 0) == []


def test_offering_never_waits(transport: Transport) -> None:
    link = transport.link("push", "ipc:///nobody-listens-here", bind=False, hwm=1)
    parts = encode(CreditBody(n=0))
    outcomes = [link.offer(parts) for _ in range(3)]
    assert not outcomes[-1]


def test_nobody_answers() -> None:
    said = r"no answer within 0.05 s; is a run going on\?"
    with Caller("tcp://127.0.0.1:9") as caller, pytest.raises(PipelineError, match=said):
        caller.ask("status", timeout_s=0.05)


def test_sending_to_a_peer_that_is_gone_is_one_line(transport: Transport) -> None:
    link = transport.link("router", "tcp://127.0.0.1:0", bind=True)
    with pytest.raises(PipelineError, match="cannot send"):
        link.send(encode(ControlBody(what="go")), to=b"nobody")
