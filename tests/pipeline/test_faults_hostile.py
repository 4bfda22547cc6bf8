"""Hostile messages to every socket of a run that is going on, and to the decoder."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewatch.pipeline import bodies as b
from phasewatch.pipeline import messages as m
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, ItemSpec, Loss, RunStart, RunStop

pytestmark = pytest.mark.timeout(300)
KINDS = dict.fromkeys(("acks", "reduced", "endings", "tracker"), zmq.PUSH)
SEQ = np.zeros(1, np.int64)
EVENT = Event(kind="onset", seq=0, id=0, t_acq=None, phase=1, posterior=0.9)


def start(run_id: str) -> RunStart:
    items = {"intensity": ItemSpec.of((64,), "f4")}
    return RunStart(run_id=run_id, source="a:b", items=items)


def batch(n: int = 1, value: float = 0.5, dtype: str = "f4") -> Batch:
    seq = np.arange(n)
    return Batch(seq, seq, None, {"intensity": np.full((n, 64), value, dtype)}, {"received": seq})


def valid(run_id: str) -> list[list[Any]]:
    """One message of each kind."""
    stop = RunStop(run_id=run_id, reason="end of run", loss=Loss())
    slots = m.encode_slots(run_id, batch(), slot=1, generation=SEQ)
    report = b.ReportBody(run_id=run_id, position=3, events=(EVENT,))
    return [
        m.encode_start(start(run_id)),
        m.encode_batch(run_id, batch(2)),
        slots,
        m.encode_packed(run_id, batch(2), [(b"not", b"tiles")] * 2),
        *m.encode_failed(run_id, [Failure(0, 0, "baseline", "bad")]),
        m.encode(b.DroppedBody(run_id=run_id, items=((0, 0),), reason="ring full")),
        m.encode(b.EventBody(run_id=run_id, event=EVENT)),
        m.encode(b.StopBody(stop=stop, aborted=True)),
        m.encode(report, {"state": np.zeros(3, np.uint8)}),
        m.encode(b.ResumeBody(run_id=run_id, position=3), {"state": np.zeros(3, np.uint8)}),
        m.encode(b.CreditBody(n=1024)),
        m.encode(b.LeaveBody()),
        m.encode(b.AckBody(run_id=run_id, seq=3)),
        m.encode(b.ControlBody(what="health", data={"received": "many"})),
    ]


def header(body: dict[str, Any], arrays: Any = (), v: Any = 2) -> bytes:
    return msgpack.packb({"v": v, "body": body, "arrays": arrays})


def unreadable(run_id: str) -> list[list[bytes]]:
    """What is no message at all."""
    one = {"type": "batch", "run_id": run_id, "n": 1, "columns": []}
    whole = [bytes(p) for p in m.encode_batch(run_id, batch())]
    return [
        [b""],
        [b"\xc1\xff\x00random"],
        [np.random.default_rng(1).bytes(5000)],
        [b""] * 2000,
        [whole[0][:-3], *whole[1:]],
        whole[:-1],
        [*whole[:-1], whole[-1][:-1]],
        [header(one, v=1), *whole[1:]],
        [header({**one, "n": -1})],
        [header({**one, "unknown": 1})],
        [header(one, [["array/intensity", "|O", [1]]]), b"12345678"],
        [header(one, [["array/intensity", "<f4", [1 << 40]]]), b""],
        [header(one, [["array/intensity", "<f4", [2**62, 2**62]]]), b""],
        [header({"type": "credit", "n": 10**9})],
        [header({"type": "credit", "n": -1})],
        [header({"type": "ack", "run_id": run_id, "seq": -5})],
        [header({"type": "slots", "run_id": run_id, "slot": -1, "n": 1, "columns": []})],
        [header({"type": "failed", "run_id": run_id, "items": [[2**64 - 1, 0, "a", "b"]]})[:-2]],
        [b"\x00" * (2 << 20)],
    ]


def untrue(run_id: str) -> list[list[Any]]:
    """What is a message of this run, and cannot be true."""
    no_state = b.ReportBody(run_id=run_id, position=10**9)
    far = b.ReportBody(run_id=run_id, position=10**9)
    beyond = m.encode_slots(run_id, batch(64), slot=10**6, generation=np.arange(64))
    short = b.SlotsBody(run_id=run_id, slot=0, n=64, columns=("seq", "ids"))
    late = np.array([2**62])
    return [
        m.encode_batch(run_id, batch(dtype="f8")),
        m.encode_batch(run_id, batch(value=np.nan)),
        m.encode_batch(run_id, Batch(late, late, None, batch().arrays, {"received": late})),
        m.encode(b.BatchBody(run_id=run_id, n=3, columns=("seq",)), {"columns": SEQ}),
        m.encode(b.BatchBody(run_id=run_id, n=0, columns=())),
        m.encode(b.AckBody(run_id=run_id, seq=10**12)),
        m.encode(b.ResumeBody(run_id=run_id, position=10**12)),
        m.encode(b.FailedBody(run_id=run_id, items=((2**62, 0, "a", "b"), (-1, 0, "a", "b")))),
        m.encode(b.DroppedBody(run_id=run_id, items=((2**62, 0),), reason="x")),
        m.encode(no_state),
        m.encode(far, {"state": np.zeros(3, np.uint8)}),
        beyond,
        m.encode_packed(run_id, batch(2), [(b"\0" * 9,)] * 2),
        m.encode(b.PackedBody(run_id=run_id, n=9, columns=("seq",)), {"packed/0/0": SEQ}),
        m.encode(short, {"columns": np.array([SEQ, SEQ])}),
        *(m.encode(b.ControlBody(what=w)) for w in ("started", "tracked", "event", "hello", "x")),
        m.encode(b.ControlBody(what="error", data={"text": "I am lost", "final": True})),
        m.encode(b.ControlBody(what="written", data={"stop": 3})),
    ]


@pytest.mark.parametrize("guests", [False, True], ids=["alone", "open to guests"])
def test_a_run_goes_on_whatever_is_sent_to_its_sockets(
    ramps: Any, play: Any, model: Path, listen: str, *, guests: bool
) -> None:
    config = ramps.configure(model, runtime={"listen": listen}) if guests else ramps.configure()
    host, _, port = listen.rpartition(":")
    open_to_guests = {
        n: f"{host}:{int(port) + k}" for k, n in enumerate(("gate", "work", "reduced"))
    }
    hears = "classifier" if guests else "tracker"  # what workers say of the run

    def act(run: Any) -> Any:
        yield from run.progress(30)
        [folder] = Path(tempfile.gettempdir()).glob("phasewatch-*")
        assert folder.stat().st_mode & 0o077 == 0  # of strangers, only those of the same user
        run_id = run.view.run_id
        corpus = [*unreadable(run_id), *valid("foreign"), *untrue(run_id)]
        with zmq.Context() as context:
            addresses = {file.name: f"ipc://{file}" for file in folder.iterdir()}
            addresses |= {"control": run.view.control, **(open_to_guests if guests else {})}
            sockets = {}
            for name, address in addresses.items():
                socket = context.socket(KINDS.get(name, zmq.DEALER))
                socket.linger = 0
                socket.connect(address)
                sockets[name] = socket
                for parts in corpus:
                    while True:
                        with contextlib.suppress(zmq.Again):
                            socket.send_multipart(parts, zmq.NOBLOCK)
                            break
                        yield
            at_least = len(unreadable(run_id)) - 1  # `b""` to a router is nothing at all
            for role in ("receiver", "tracker", "sink", hears):
                yield from run.until(lambda r=role: run.number(r, "rejected") >= at_least)
            yield from run.progress(100)
            assert not run.view.book.restarts
            # Workers that disagree must not go on; one lie is outlived, more than [runtime]
            # restarts of them are not.
            lie = m.encode_start(start(run_id))
            sockets["reduced" if guests else "tracker"].send_multipart(lie)
            yield from run.until(lambda: run.view.book.restarts == {hears: 1})
            yield from run.progress(100)
            known = {"hub", "work", "tracker", "results", "acks", "control"}
            assert sockets.keys() == (known | {"gate", "reduced", "endings"} if guests else known)
            for socket in sockets.values():
                socket.close()

    outcome = ramps.run(config, play(act))
    ramps.check_whole(config, outcome)


MESSAGES = [[bytes(part) for part in parts] for parts in valid("r")]


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """A valid message with a few bytes, parts or fields changed."""
    parts = [bytearray(p) for p in draw(st.sampled_from(MESSAGES))]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "cut", "insert", "swap", "drop", "double", "field"]))
        i = draw(st.integers(0, len(parts) - 1)) if parts else 0
        if not parts:
            break
        at = draw(st.integers(0, max(0, len(parts[i]) - 1)))
        if kind == "flip" and parts[i]:
            parts[i][at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del parts[i][at:]
        elif kind == "insert":
            parts[i][at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "swap":
            parts[0], parts[i] = parts[i], parts[0]
        elif kind == "drop":
            del parts[i]
        elif kind == "double":
            parts.append(parts[i])
        elif kind == "field":
            _change(draw, parts)
    return [bytes(part) for part in parts]


def _change(draw: st.DrawFn, parts: list[bytearray]) -> None:
    """Put something else in the place of one value of the header."""
    try:
        head = msgpack.unpackb(parts[0])
    except Exception:  # changed already
        return
    node: Any = head
    while isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or draw(st.booleans()):
            node[key] = draw(
                st.sampled_from([None, -1, 2**63, 1e300, "", "x" * 200, [], {}, True, [[]]])
            )
            break
        node = node[key]
    parts[0] = bytearray(msgpack.packb(head))


@settings(max_examples=1000)
@given(mutated())
def test_a_changed_message_is_refused_or_sound(parts: list[bytes]) -> None:
    with contextlib.suppress(m.MessageError):
        message = m.decode(parts)
        with contextlib.suppress(m.MessageError):
            assert len(message.batch()) == message.body.n
        with contextlib.suppress(m.MessageError):
            assert message.run().run_id
        with contextlib.suppress(m.MessageError):
            assert len(message.packed(2)) == message.body.n
        for array in message.arrays.values():
            assert array.nbytes <= sum(map(len, parts))
