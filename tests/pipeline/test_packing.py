"""Compressed frames that are sent unopened: decoded the same bits, and nothing is trusted."""

import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline import messages
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.bodies import CreditBody, PackedBody
from phasewatch.pipeline.config import parse_config
from phasewatch.pipeline.documents import ItemSpec, Packing, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import (
    Message,
    MessageError,
    columns_of,
    encode,
    encode_batch,
    encode_packed,
    encode_start,
)
from phasewatch.pipeline.packing import CODECS, Unpacker, decode
from phasewatch.pipeline.processes.desk import Setup
from phasewatch.pipeline.processes.orders import Loan, Orders
from phasewatch.pipeline.transport.links import Transport

FILTERS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "gzip", "compression_opts": 2},
    "shuffle+deflate": {"compression": "gzip", "shuffle": True},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
}
RNG = np.random.default_rng(3)


def chunk_of(array: np.ndarray, **filters: Any) -> np.ndarray:
    """Compress `array` as HDF5 does."""
    with h5py.File("packing", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", data=array[None], chunks=(1, *array.shape), **filters)
        file.flush()
        return np.frombuffer(data.id.read_direct_chunk((0,) * data.ndim)[1], np.uint8)


def counts(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Counts of a detector: mostly small, a few large, some rows empty."""
    array = RNG.poisson(0.7, shape)
    array[array == 3] = 120
    array[: shape[0] // 3] = 0
    return array.astype(dtype)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(1, 5), (7, 11), (96, 130), (200, 301)])
def test_decoded_is_what_was_compressed(codec: str, dtype: str, shape: tuple[int, int]) -> None:
    array = counts(shape, dtype)
    out = np.full_like(array, 77)
    decode(codec, chunk_of(array, **FILTERS[codec]), out)
    np.testing.assert_array_equal(out, array)


@pytest.mark.parametrize("block", [8, 512, 4096])
def test_blocks_of_any_size_and_numbers_of_any_bits(block: int) -> None:
    array = RNG.integers(0, 2**64, (50, 41), np.uint64, endpoint=False)  # does not compress
    array[10:30] = np.arange(41)  # and this does, with matches that overlap themselves
    out = np.zeros_like(array)
    decode("bitshuffle-lz4", chunk_of(array, **hdf5plugin.Bitshuffle(block, cname="lz4")), out)
    np.testing.assert_array_equal(out, array)


ARRAY = counts((60, 90), "i2")
CHUNKS = {codec: chunk_of(ARRAY, **FILTERS[codec]) for codec in CODECS}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    codec = draw(st.sampled_from(CODECS))
    chunk = bytearray(CHUNKS[codec].tobytes())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(chunk) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "begin", "ones"]))
        if kind == "flip" and chunk:
            chunk[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del chunk[at:]
        elif kind == "insert":
            chunk[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "begin":
            chunk[:12] = draw(st.binary(min_size=12, max_size=12))
        else:
            chunk[at : at + 300] = b"\xff" * len(chunk[at : at + 300])
    return codec, np.frombuffer(bytes(chunk), np.uint8)


@given(damaged())
def test_a_damaged_chunk_is_an_error_or_a_frame(case: tuple[str, np.ndarray]) -> None:
    codec, chunk = case
    memory = np.full(ARRAY.size + 64, 77, np.int16)
    out = memory[32:-32].reshape(ARRAY.shape)
    with suppress(PipelineError):
        decode(codec, chunk, out)
    assert (memory[:32] == 77).all()
    assert (memory[-32:] == 77).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("cut", [1, 5, 40])
def test_what_is_cut_off_is_an_error(codec: str, cut: int) -> None:
    with pytest.raises(PipelineError, match=codec.rpartition("+")[2]):
        decode(codec, CHUNKS[codec][:-cut], np.empty_like(ARRAY))
    longer = np.append(CHUNKS[codec], np.zeros(3, np.uint8))
    if codec == "bitshuffle-lz4":
        with pytest.raises(PipelineError, match="damaged"):
            decode(codec, longer, np.empty_like(ARRAY))


def test_no_more_is_made_than_is_due() -> None:
    bomb = np.frombuffer(zlib.compress(bytes(1 << 24)), np.uint8)
    with pytest.raises(PipelineError, match="is not one of 10800"):
        decode("deflate", bomb, np.empty_like(ARRAY))
    claim = np.frombuffer((1 << 62).to_bytes(8, "big") + bytes(4), np.uint8)
    with pytest.raises(PipelineError, match="4611686018427387904 bytes claimed, 10800 are due"):
        decode("bitshuffle-lz4", claim, np.empty_like(ARRAY))
    with pytest.raises(PipelineError, match="codec 'zip' is not one of"):
        decode("zip", claim, np.empty_like(ARRAY))


def packing(**changes: Any) -> Packing:
    whole = {"codec": "deflate", "dtype": "<i2", "tiles": ((0, 0, 60, 90),)}
    return Packing(**{**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "spec", "said"),
    [
        ({"codec": "zip"}, ((60, 90), "<i2"), "packed as zip"),
        ({"dtype": "|O"}, ((60, 90), "<i2"), r"packed as deflate of \|O"),
        ({"dtype": "<i4"}, ((60, 90), "<i2"), "int32 tiles are no int16"),
        ({}, ((60,), "<i2"), "int16 tiles are no int16"),
        ({}, ((59, 90), "<i2"), r"tile \(0, 0, 60, 90\) is not in a frame \(59, 90\)"),
        ({"fill": 1 << 40}, ((60, 90), "<i2"), "fill 1099511627776 is no int16"),
        ({}, ((60, 90), "|O"), r"for \|O"),
    ],
)
def test_what_cannot_be_is_refused(changes: Any, spec: Any, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        Unpacker(packing(**changes), ItemSpec(shape=spec[0], dtype=spec[1]))


def test_tiles_have_their_places() -> None:
    tiles = ((0, 0, 2, 3), (1, 4, 3, 2))
    left, right = counts((2, 3), "u2") + 1, counts((3, 2), "u2") + 1
    due = np.full((5, 6), -1, np.int32)
    due[0:2, 0:3], due[1:4, 4:6] = left, right
    unpacker = Unpacker(
        packing(tiles=tiles, dtype="<u2", flip=True, fill=-1), ItemSpec.of((5, 6), "i4")
    )
    out = np.empty((5, 6), np.int32)
    unpacker.frame([chunk_of(tile, compression="gzip") for tile in (left, right)], out)
    np.testing.assert_array_equal(out, due[::-1])


SPEC = ItemSpec.of(ARRAY.shape, "i2")
RUN = RunStart(run_id="r", source="a:b", items={"frame": SPEC})


class Receiver:
    """Stands in for the receiver at the other end of `orders`."""

    def __init__(self, transport: Transport, folder: Path) -> None:
        self._transport = transport
        self._link = transport.link("router", f"ipc://{folder}/w", bind=True)
        config = parse_config({"source": {"uri": "a:b"}}, name="test", folder=folder)
        setup = Setup("r", config, {"work": self._link.address})
        desk: Any = SimpleNamespace(role="reducer@there-1", clock=lambda: 0)
        self.orders = Orders(transport, desk, setup, ahead=2)
        assert transport.poll([self._link], 5000)
        [(self._who, self.hello)] = self._link.drain(5)

    def give(self, parts: Any) -> RunStart | Loan | None:
        self._link.send(parts, to=self._who)
        assert self._transport.poll([self.orders.link], 5000)
        return self.orders.take()


def batch(n: int) -> Batch:
    seq = np.arange(5, 5 + n)
    return Batch(seq, seq + 100, None, {"frame": np.repeat(ARRAY[None], n, 0)}, {"sent": seq})


@pytest.fixture
def receiver(tmp_path: Path) -> Any:
    with Transport(linger_s=0) as transport:
        yield Receiver(transport, tmp_path)


@pytest.mark.parametrize("codec", CODECS)
def test_a_worker_of_another_host_unpacks(receiver: Receiver, codec: str) -> None:
    assert isinstance(receiver.hello.body, CreditBody)
    assert receiver.hello.body.codecs == CODECS
    start = receiver.give(encode_start(RUN, packing(codec=codec)))
    assert isinstance(start, RunStart)
    parts = encode_packed("r", batch(3), [(CHUNKS[codec].tobytes(),)] * 3)
    assert parts is not None
    loan = receiver.give(parts)
    assert isinstance(loan, Loan)
    assert loan.failures == ()
    assert loan.batch.seq.tolist() == [5, 6, 7]
    assert loan.batch.stamps["sent"].tolist() == [5, 6, 7]
    np.testing.assert_array_equal(loan.batch.arrays["frame"], batch(3).arrays["frame"])
    assert sum(map(len, parts)) < 0.5 * sum(map(len, encode_batch("r", batch(3))))


def test_a_bad_chunk_is_a_failure_of_its_frame_alone(receiver: Receiver) -> None:
    receiver.give(encode_start(RUN, packing()))
    good = CHUNKS["deflate"].tobytes()
    for chunks, kept in (([good, b"bad", good], [5, 7]), ([b"", b"x", good[:-9]], [])):
        parts = encode_packed("r", batch(3), [(chunk,) for chunk in chunks])
        loan = receiver.give(parts)
        assert isinstance(loan, Loan)
        assert loan.batch.seq.tolist() == kept
        failed = [(f.seq, f.id, f.stage) for f in loan.failures]
        assert failed == [(s, s + 100, "unpack") for s in (5, 6, 7) if s not in kept]
        assert np.array_equal(loan.batch.arrays["frame"], batch(len(kept)).arrays["frame"])


def hostile() -> list[list[Any]]:
    names, arrays = columns_of(batch(2).with_arrays(drop=["frame"]))
    chunk = CHUNKS["deflate"]
    body = PackedBody(run_id="r", n=2, columns=names)
    both = {"packed/0/0": chunk, "packed/1/0": chunk}
    return [
        encode(body, arrays),
        encode(body, {**arrays, "packed/0/0": chunk}),
        encode(body, {**arrays, "packed/0/0": chunk, "packed/0/1": chunk}),
        encode(body, {**arrays, **both, "packed/2/0": chunk}),
        encode(body, {**arrays, **both, "packed/0/0": chunk.astype("i2")}),
        encode(body, {**arrays, **both, "packed/0/0": chunk[:, None]}),
        encode(PackedBody(run_id="r", n=10**9, columns=names), {**arrays, **both}),
        encode(PackedBody(run_id="r", n=2, columns=("seq",)), {**arrays, **both}),
        encode_start(RUN, packing(codec="zip")),
        encode_start(RUN, packing(tiles=((0, 0, 1 << 20, 1 << 20),))),
    ]


def test_what_is_no_packed_message_is_refused(receiver: Receiver) -> None:
    good = encode_packed("r", batch(2), [(CHUNKS["deflate"].tobytes(),)] * 2)
    assert receiver.give(good) is None  # nothing was said of how
    receiver.give(encode_start(RUN, packing()))
    for n, parts in enumerate(hostile(), 2):
        assert receiver.give(parts) is None
        assert receiver.orders.link.rejected == n
    assert isinstance(receiver.give(encode_start(RUN, packing())), RunStart)
    loan = receiver.give(good)
    assert isinstance(loan, Loan)
    assert len(loan.batch) == 2


def test_claims_of_frames_are_bounded() -> None:
    unpacker = Unpacker(packing(tiles=((0, 0, 1, 1),)), ItemSpec.of((1 << 14, 1 << 14), "i2"))
    chunk = [np.frombuffer(zlib.compress(b"12"), np.uint8)]
    with pytest.raises(PipelineError, match="2 packed frames are 1073741824 bytes"):
        unpacker.batch(batch(2).with_arrays(drop=["frame"]), [chunk] * 2)


def test_too_many_parts_are_sent_as_frames() -> None:
    assert encode_packed("r", batch(8), [(b"x",) * 8] * 8) is None
    assert encode_packed("r", batch(7), [(b"x",) * 9] * 7) is not None


def test_packed_is_only_what_says_so() -> None:
    message = messages.decode(encode_batch("r", batch(1)))
    with pytest.raises(MessageError, match="'batch' where packed items were due"):
        Message(message.body, message.arrays).packed(1)
