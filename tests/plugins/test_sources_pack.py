"""What sources give along with their frames: the chunks that these were decoded from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, Packing
from phasewatch.pipeline.packing import Unpacker
from phasewatch.pipeline.plugin import Source, open_source

BITSHUFFLE = dict(hdf5plugin.Bitshuffle(cname="lz4"))
FILTERS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "gzip"},
    "shuffle+deflate": {"compression": "gzip", "shuffle": True},
    "bitshuffle-lz4": BITSHUFFLE,
}


def frames_file(path: Path, *, dtype: str = "u2", **options: Any) -> str:
    frames = np.random.default_rng(5).poisson(1, (12, 16, 9)).astype(dtype)
    with h5py.File(path, "w") as file:
        file.create_dataset("d", data=frames, **{"chunks": (1, 16, 9), **options})
    return f"hdf5:{path}#d"


def check(source: Source, codec: str, n: int, *, wanted: Callable[[], bool] = lambda: True) -> None:
    """Check that the chunks of `n` items give the very frames that come with them."""
    run = source.start()
    packing: Packing = source.pack(wanted)
    assert packing.codec == codec
    unpacker = Unpacker(packing, run.items["frame"])
    unpacked = 0
    for item in source:
        if not isinstance(item, Batch):
            continue
        for frame, chunks in zip(item.arrays["frame"], item.packed, strict=bool(item.packed)):
            out = np.full_like(frame, 77)
            unpacker.frame([np.frombuffer(chunk, np.uint8) for chunk in chunks], out)
            np.testing.assert_array_equal(out, frame)
            unpacked += 1
    assert unpacked == n


@pytest.mark.parametrize("codec", FILTERS)
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
@pytest.mark.parametrize("flip", [False, True])
def test_chunks_of_hdf5_are_its_frames(
    tmp_path: Path, codec: str, dtype: str, *, flip: bool
) -> None:
    uri = frames_file(tmp_path / "f.h5", dtype=dtype, **FILTERS[codec])
    check(open_source(uri, flip=flip), codec, 12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 16, 9), "compression": "gzip"},
        {"chunks": (1, 8, 9), "compression": "gzip"},
        {"dtype": ">i2", "compression": "gzip"},
        {"compression": "gzip", "fletcher32": True},
        dict(hdf5plugin.Bitshuffle(cname="none")),
        dict(hdf5plugin.LZ4()),
    ],
    ids=str,
)
def test_what_is_packed_otherwise_is_not_given(tmp_path: Path, options: dict[str, Any]) -> None:
    source = open_source(frames_file(tmp_path / "f.h5", **options))
    source.start()
    assert source.pack(lambda: True) is None
    assert all(item.packed == () for item in source)


def test_chunks_come_only_while_they_are_wanted(tmp_path: Path) -> None:
    uri = frames_file(tmp_path / "f.h5", compression="gzip")
    asked: list[bool] = []

    def wanted() -> bool:
        asked.append(True)
        return len(asked) % 3 == 0

    source = open_source(uri)
    source.start()
    source.pack(wanted)
    got = [bool(item.packed) for item in source]
    assert got == [False, False, True] * 4


def test_a_frame_that_was_not_compressed_has_no_chunk(tmp_path: Path) -> None:
    uri = frames_file(tmp_path / "f.h5", compression="gzip")
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        raw = np.arange(144, dtype=np.uint16).tobytes()
        file["d"].id.write_direct_chunk((3, 0, 0), raw, filter_mask=1)
        file["d"].id.write_direct_chunk((5, 0, 0), b"not deflate")
    source = open_source(uri)
    source.start()
    source.pack(lambda: True)
    items = list(source)
    assert [bool(i.packed) for i in items if isinstance(i, Batch)] == [True] * 3 + [False] + [
        True
    ] * 7
    assert isinstance(items[5], Failure)


@pytest.mark.parametrize("codec", FILTERS)
def test_chunks_of_modules_are_the_assembled_frames(
    lambda_run: Callable[..., Path], codec: str
) -> None:
    folder = lambda_run(parts=2, per_part=3)
    for path in folder.iterdir():
        with h5py.File(path, "r+") as file:
            group = file["entry/instrument/detector"]
            data, name = group["data"][:], "data"
            del group[name]
            group.create_dataset(name, data=data, chunks=(1, *data.shape[1:]), **FILTERS[codec])
    check(open_source(f"lambda-nexus:{folder}"), codec, 6)
    (folder / "run7_m2_part00001.nxs").unlink()
    check(open_source(f"lambda-nexus:{folder}"), codec, 3)


def test_modules_of_several_kinds_are_not_given(lambda_run: Callable[..., Path]) -> None:
    source = open_source(f"lambda-nexus:{lambda_run()}")
    source.start()
    assert source.pack(lambda: True) is None  # they are not compressed


def test_chunks_of_a_real_run_are_its_frames(data_dir: Path) -> None:
    source = open_source(f"lambda-nexus:{data_dir / 'lambda_p022' / 'testasapo1_1009_00002'}")
    run = source.start()
    unpacker = Unpacker(source.pack(lambda: True), run.items["frame"])
    assert run.items["frame"] == ItemSpec.of(run.items["frame"].shape, "i2")
    item = next(i for i in source if isinstance(i, Batch))
    source.close()
    chunks = [np.frombuffer(chunk, np.uint8) for chunk in item.packed[0]]
    out = np.full_like(item.arrays["frame"][0], 77)
    unpacker.frame(chunks, out)
    np.testing.assert_array_equal(out, item.arrays["frame"][0])
    print("bytes:", sum(c.nbytes for c in chunks), "of", out.nbytes)
