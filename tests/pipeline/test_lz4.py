"""LZ4 chunks: the same bits as HDF5's own filter gives, and nothing is trusted."""

from contextlib import suppress

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline import bitshuffle, lz4
from phasewatch.pipeline.errors import PipelineError

RNG = np.random.default_rng(8)


def chunk_of(array: np.ndarray, **filters: object) -> np.ndarray:
    with h5py.File("lz4", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("d", data=array[None], chunks=(1, *array.shape), **filters)
        file.flush()
        return np.frombuffer(data.id.read_direct_chunk((0,) * data.ndim)[1], np.uint8)


def counts(shape: tuple[int, int], dtype: str) -> np.ndarray:
    array = RNG.poisson(0.2, shape)
    array[: shape[0] // 3] = 0
    return array.astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f8"])
@pytest.mark.parametrize("block", [0, 1, 100, 4096])
def test_framed(dtype: str, block: int) -> None:
    array = counts((61, 83), dtype)
    chunk, out = chunk_of(array, **hdf5plugin.LZ4(block)), np.full_like(array, 77)
    lz4.decode(chunk, out)
    np.testing.assert_array_equal(out, array)


def test_blocks_that_do_not_compress_are_stored() -> None:
    array = RNG.integers(0, 2**64, (50, 41), np.uint64, endpoint=False)
    array[10:30] = 5
    out = np.zeros_like(array)
    lz4.decode(chunk_of(array, **hdf5plugin.LZ4(500)), out)
    np.testing.assert_array_equal(out, array)


def test_bare() -> None:
    array = counts((61, 83), "u2")
    out = np.full_like(array, 77)
    lz4.decode(chunk_of(array, **hdf5plugin.LZ4())[16:], out, bare=True)  # its only block
    np.testing.assert_array_equal(out, array)
    out[...] = 77
    bitshuffle.decode(chunk_of(array, **hdf5plugin.Bitshuffle(cname="lz4"))[12:], out, bare=True)
    np.testing.assert_array_equal(out, array)


ARRAY = counts((60, 90), "u2")
CHUNK = chunk_of(ARRAY, **hdf5plugin.LZ4(2000))


@given(st.data(), st.booleans())
def test_damage_is_an_error_or_an_image(data: st.DataObject, bare: bool) -> None:
    chunk = bytearray(CHUNK[16:] if bare else CHUNK)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(chunk)))
        if data.draw(st.booleans()):
            chunk[at : at + 4] = data.draw(st.binary(max_size=9))
        else:
            del chunk[at:]
    memory = np.full(ARRAY.size + 64, 77, np.uint16)
    out = memory[32:-32].reshape(ARRAY.shape)
    with suppress(PipelineError):
        lz4.decode(np.frombuffer(bytes(chunk), np.uint8), out, bare=bare)
    assert (memory[:32] == 77).all()
    assert (memory[-32:] == 77).all()


def test_claims_are_compared() -> None:
    out = np.empty_like(ARRAY)
    claim = np.frombuffer((1 << 40).to_bytes(8, "big") + bytes(4), np.uint8)
    with pytest.raises(PipelineError, match="lz4: 1099511627776 bytes claimed, 10800 are due"):
        lz4.decode(claim, out)
    endless = np.frombuffer((10800).to_bytes(8, "big") + bytes(4), np.uint8)
    with pytest.raises(PipelineError, match="damaged at byte 12 of 12"):
        lz4.decode(endless, out)
    with pytest.raises(PipelineError, match="lz4: a chunk of 3 bytes"):
        lz4.decode(CHUNK[:3], out)
    for cut in (CHUNK[:-1], np.append(CHUNK, np.zeros(1, np.uint8))):
        with pytest.raises(PipelineError, match="lz4: the chunk is damaged"):
            lz4.decode(cut, out)
