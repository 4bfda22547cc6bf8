"""Messages: what goes in comes out, and nothing else does."""

import contextlib
import json
from importlib.resources import files

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from phasewatch.pipeline import bodies as b
from phasewatch.pipeline import messages as m
from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.documents import Event, ItemSpec, Loss, RunStart, RunStop, Zone

INT64 = st.integers(-(2**63), 2**63 - 1)
DTYPES = st.sampled_from(["?", "u1", "<u2", ">u2", "<i4", ">i8", "<f4", ">f8"])


def wire(parts: list[m.Part]) -> list[bytes]:
    return [bytes(part) for part in parts]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    n = draw(st.integers(0, 5))
    column = npst.arrays(np.int64, n, elements=INT64)
    shape = draw(st.tuples(st.just(n), st.integers(0, 3), st.integers(0, 3)))
    arrays = draw(
        st.dictionaries(
            st.text("abc", min_size=1, max_size=3), npst.arrays(draw(DTYPES), shape), max_size=3
        )
    )
    return Batch(
        seq=draw(column),
        ids=draw(column),
        t_acq=draw(st.none() | column),
        arrays=arrays,
        stamps={"received": draw(column)},
    )


@given(batches(), st.text(min_size=1, max_size=20))
def test_a_batch_comes_back_bit_for_bit(batch: Batch, run_id: str) -> None:
    message = m.decode(wire(m.encode_batch(run_id, batch)))
    back = message.batch()
    assert message.body.run_id == run_id
    np.testing.assert_array_equal(back.seq, batch.seq)
    np.testing.assert_array_equal(back.ids, batch.ids)
    assert (back.t_acq is None) == (batch.t_acq is None)
    assert back.arrays.keys() == batch.arrays.keys()
    for name, array in batch.arrays.items():
        assert back.arrays[name].dtype == array.dtype.newbyteorder("<")
        native = array.astype(back.arrays[name].dtype)
        assert back.arrays[name].tobytes() == native.tobytes()
        assert back.arrays[name].shape == array.shape


def test_an_array_that_is_not_contiguous_arrives_whole() -> None:
    frames = np.arange(48, dtype=np.uint16).reshape(2, 4, 6)[:, ::-1, ::2]
    batch = Batch(np.arange(2), np.arange(2), arrays={"frame": frames})
    back = m.decode(wire(m.encode_batch("r", batch))).batch()
    np.testing.assert_array_equal(back.arrays["frame"], frames)


RUN = RunStart(
    run_id="r",
    source="series:x.npz",
    items={"intensity": ItemSpec.of((3,), "f4")},
    unit="2th_deg",
    wavelength_m=4.8e-11,
    expected=7,
    classes=("before", "after"),
    settings={"baseline": {"method": "asls", "lam": 1e5}},
    constants={"axis": np.arange(3.0)},
)


def test_a_start_brings_its_constants() -> None:
    back = m.decode(wire(m.encode_start(RUN))).run()
    np.testing.assert_array_equal(back.constants["axis"], RUN.constants["axis"])
    assert back.model_dump() == RUN.model_dump()


@pytest.mark.parametrize(
    "body",
    [
        b.FailedBody(run_id="r", items=((1, 2, "integrate", "all pixels invalid"),)),
        b.DroppedBody(run_id="r", items=((1, 2),), reason="ring full"),
        b.EventBody(
            run_id="r",
            event=Event(kind="onset", seq=1, id=2, t_acq=None, phase=1, posterior=0.75),
        ),
        b.StopBody(
            stop=RunStop(
                run_id="r",
                reason="end of run",
                loss=Loss(received=3, dropped={"ring full": 1}),
                zones=(Zone(boundary=0, after=3, before=6, n=2, passed=True),),
                latency_ms={"p50": 1.5, "per_stage": {"reduce": {"p50": 1.0}}},
            )
        ),
        b.CreditBody(n=2),
        b.AckBody(run_id="r", seq=9),
        b.ControlBody(what="status", sender="me", data={"a": [1, {"b": None}]}),
    ],
    ids=lambda body: body.type,
)
def test_every_other_message_comes_back(body: b.Body) -> None:
    back = m.decode(wire(m.encode(body))).body
    if isinstance(body, b.ControlBody):
        assert back.data == {"a": (1, {"b": None})}
    else:
        assert back == body


def test_failures_travel_as_failures() -> None:
    failures = [Failure(3, 30, "baseline", "no bin is finite")]
    (parts,) = m.encode_failed("r", failures)
    assert m.decode(wire(parts)).body.failures() == failures


def test_any_number_of_failures_and_drops_can_be_sent() -> None:
    failures = [Failure(i, 2**62, "x" * 99, "y" * 9999) for i in range(2500)]
    messages = [m.decode(wire(parts)) for parts in m.encode_failed("r", failures)]
    back = [f for message in messages for f in message.body.failures()]
    assert [f.seq for f in back] == list(range(2500))
    assert len(back[0].error) == m.ERROR_LENGTH
    dropped = [Dropped(2**62 + i, i, "ring full") for i in range(50_000)]
    dropped += [Dropped(1, 2, "another reason")]
    messages = [m.decode(wire(parts)).body for parts in m.encode_dropped("r", dropped)]
    assert [Dropped(*item, body.reason) for body in messages for item in body.items] == dropped


def test_what_could_not_be_received_is_not_sent() -> None:
    with pytest.raises(m.MessageError, match="header of"):
        m.encode(b.ControlBody(what="x", data={"a": "b" * (2 << 20)}))


def header(body: object, arrays: object = (), v: object = 2) -> bytes:
    return msgpack.packb({"v": v, "body": body, "arrays": arrays})


BATCH = {"type": "batch", "run_id": "r", "n": 1, "columns": ["seq", "ids"]}
SEQ = ["seq", "<i8", [1]]

HOSTILE = {
    "nothing": ([], "empty message"),
    "empty part": ([b""], "not msgpack"),
    "random": ([b"\xc1\xff\x00random"], "not msgpack"),
    "truncated header": ([header(BATCH)[:-3]], "not msgpack"),
    "not a map": ([msgpack.packb([1, 2])], "not a map"),
    "no version": ([msgpack.packb({"body": BATCH})], "protocol version None; this is version 2"),
    "other version": ([header(BATCH, v=1)], "protocol version 1; this is version 2"),
    "no body": ([msgpack.packb({"v": 2})], "header field body: Field required"),
    "unknown type": ([header({"type": "exec"})], "header field body"),
    "unknown field": ([header({**BATCH, "x": 1})], "header field body.batch.x: Extra inputs"),
    "negative count": ([header({**BATCH, "n": -1})], "body.batch.n"),
    "text for a number": ([header({**BATCH, "n": "1"})], "body.batch.n"),
    "extension type": ([header({**BATCH, "n": msgpack.ExtType(1, b"x")})], "not msgpack"),
    "2 GB": ([header(BATCH, [["array/frame", "<u2", [1, 2**30]]]), b""], "over the limit"),
    "overflow": ([header(BATCH, [["array/a", "<u2", [2**62, 2**62]]]), b""], "over the limit"),
    "empty and huge": ([header(BATCH, [["array/a", "|u1", [0, 2**63]]]), b""], "over the limit"),
    "many that are large": (
        [header(BATCH, [[f"array/{i}", "|u1", [2**28]] for i in range(3)]), b"", b"", b""],
        "claimed, 0 came",
    ),
    "negative shape": ([header(BATCH, [["array/a", "<u2", [-1]]]), b""], "header field arrays"),
    "object": ([header(BATCH, [["array/a", "|O", [1]]]), b"12345678"], "dtype '|O'"),
    "big-endian": ([header(BATCH, [["seq", ">i8", [1]]]), b"12345678"], "dtype '>i8'"),
    "too deep": ([header(BATCH, [["array/a", "|u1", [1] * 9]]), b"1"], "9 axes"),
    "short part": ([header(BATCH, [SEQ]), b"1234"], "8 bytes claimed, 4 came"),
    "missing part": ([header(BATCH, [SEQ])], "1 arrays claimed, 0 parts came"),
    "extra part": ([header(BATCH), b"1"], "0 arrays claimed, 1 parts came"),
    "twice": ([header(BATCH, [SEQ, SEQ]), b"12345678", b"12345678"], "comes twice"),
    "many arrays": ([header(BATCH, [SEQ] * 65)], "65 arrays claimed"),
    "huge header": ([b"\x00" * (2 << 20)], "header of 2097152 bytes"),
}


@pytest.mark.parametrize(("parts", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_message_is_refused_in_one_line(parts: list[bytes], said: str) -> None:
    with pytest.raises(m.MessageError, match=r"^[^\n]{1,400}$") as caught:
        m.decode(parts)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "block", "more", "said"),
    [
        (["seq"], ["<i8", [1, 1]], [], "without seq or ids"),
        (["seq", "ids"], ["<f8", [2, 1]], [], "float64"),
        (["seq", "ids"], ["<i8", [1, 2]], [], r"int64 \(1, 2\), not int64 \(2, 1\)"),
        (["seq", "ids", "x"], ["<i8", [3, 1]], [], "column 'x' does not belong"),
        (["seq", "ids", "stamp/"], ["<i8", [3, 1]], [], "column 'stamp/' does not belong"),
        (["seq", "ids", "ids"], ["<i8", [3, 1]], [], "comes twice"),
        (["seq", "ids"], ["<i8", [2, 1]], [["x", "<i8", [1]]], "'x' does not belong"),
        (["seq", "ids"], ["<i8", [2, 1]], [["array/a", "<i8", [2]]], "for 1 items"),
        (["seq", "ids"], ["<i8", [2, 1]], [["array/a", "<i8", []]], "for 1 items"),
    ],
)
def test_columns_that_make_no_batch_are_refused(
    columns: list[str], block: list[object], more: list[list[object]], said: str
) -> None:
    arrays = [["columns", *block], *more]
    parts = [b"12345678" * int(np.prod(shape)) for _, _, shape in arrays]
    message = m.decode([header({**BATCH, "columns": columns}, arrays), *parts])
    with pytest.raises(m.MessageError, match=said):
        message.batch()


def test_a_batch_without_its_columns_is_refused() -> None:
    with pytest.raises(m.MessageError, match="columns: no array"):
        m.decode([header(BATCH)]).batch()


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_random_bytes_never_do_anything_but_be_refused(parts: list[bytes]) -> None:
    with pytest.raises(m.MessageError):
        m.decode(parts)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(position: int, flip: int) -> None:
    parts = wire(m.encode_start(RUN))
    head = bytearray(parts[0])
    head[position % len(head)] ^= flip
    with contextlib.suppress(m.MessageError):
        m.decode([bytes(head), *parts[1:]])


def test_an_array_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(m.MessageError, match="'a': dtype complex128"):
        m.encode(b.CreditBody(n=0), {"a": np.zeros(1, complex)})


def test_the_schema_has_not_drifted() -> None:
    committed = json.loads(files("phasewatch.pipeline").joinpath("schema.json").read_text())
    assert committed == m.schema(), "make schema; raise VERSION if old peers break"


def test_the_whole_of_a_message_is_limited() -> None:
    parts = [header(BATCH, [["a", "|u1", [6]], ["b", "|u1", [6]]]), b"123456", b"123456"]
    m.decode(parts, m.Limits(total_bytes=12))
    with pytest.raises(m.MessageError, match="'b' claims 6 bytes: over the limit"):
        m.decode(parts, m.Limits(total_bytes=11))
