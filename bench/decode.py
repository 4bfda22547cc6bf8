"""``phasewatch bench decode``: DECTRIS bslz4 images into memory that is lent, on one core.

Images of Poisson counts, compressed as the detector does, come as messages of Stream V2. Three
contenders take the same message in turn:

- decoder: DECTRIS's own, which gives bytes; nothing else, not even the message is read;
- user: the message read by cbor2, decoded by DECTRIS's own, copied to where the frame is to lie;
- ours: what the source ``dectris:`` does from the message to the frame in lent memory.

Times are tenth percentiles: a neighbour's time slice is longer than an image takes, and on a busy
core falls into more than half of them. Copies are what each allocates beside the frame's memory, by
tracemalloc, in frames: the decoder's bytes are one, ours are to be none.
"""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from phasewatch.bench import machine
from phasewatch.bench.measure import Samples, cores, interleaved
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.dectris_v2 import V2
from phasewatch.plugins.sources.found import Frame

SHAPE = (1065, 1030)  # EIGER 1M
TYPED = {1: 64, 2: 69, 4: 70}  # CBOR tags of u1, <u2, <u4
COUNTS = (0.01, 1.0, 30.0)  # a pixel, mean
ROUNDS, BUDGET_S = 201, 8.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times are tenth percentiles in ms per image."""

    dtype: str
    mean: float
    compression: float
    decoder_ms: float
    user_ms: float
    ours_ms: float
    user_copies: float
    our_copies: float
    samples_ns: Samples


def report(json_file: Path | None) -> None:
    """Measure, print a table, and write all to `json_file` if there is one."""
    console = Console()
    with console.status("decoding"), cores(1):
        found = [row(np.dtype(f"u{size}"), mean) for size in TYPED for mean in COUNTS]
    columns = "type|mean|packed|DECTRIS|user|ours|/DECTRIS|/user|copies|ours"
    table = Table(*columns.split("|"), title="ms per image of EIGER 1M")
    for r in found:
        times = [f"{t:.2f}" for t in (r.decoder_ms, r.user_ms, r.ours_ms)]
        ratios = [f"{r.ours_ms / t:.2f}" for t in (r.decoder_ms, r.user_ms)]
        copies = [f"{r.user_copies:.2f}", f"{r.our_copies:.2f}"]
        table.add_row(r.dtype, f"{r.mean:g}", f"{r.compression:.1f}", *times, *ratios, *copies)
    console.print(table)
    if json_file is not None:
        rows = [asdict(r) for r in found]
        content = {"scenario": "decode", "machine": machine.describe(), "rows": rows}
        json_file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def row(dtype: np.dtype[Any], mean: float) -> Row:
    """Measure images of `dtype` with `mean` counts in a pixel."""
    try:
        import cbor2
        from dectris.compression import decompress
    except ImportError:
        raise PipelineError(
            "bench decode compares with cbor2 and dectris-compression: "
            "pip install 'phasewatch[compare]'"
        ) from None
    image = np.random.default_rng(1).poisson(mean, SHAPE).astype(dtype)
    chunk, size = _compressed(image), dtype.itemsize
    typed = cbor2.CBORTag(TYPED[size], cbor2.CBORTag(56500, ["bslz4", size, chunk]))
    data = {"threshold_1": cbor2.CBORTag(40, [list(SHAPE), typed])}
    fields = {"type": "image", "series_id": 1, "image_id": 0, "data": data}
    message = cbor2.dumps(cbor2.CBORTag(55799, fields))
    lent, decode = np.empty_like(image), V2()

    def ours() -> None:
        for found in decode(memoryview(message)):
            if isinstance(found, Frame):
                found.write(lent)

    def user() -> None:
        tag = cbor2.loads(message)["data"]["threshold_1"].value[1].value
        raw = decompress(tag.value[2], "bslz4", elem_size=tag.value[1])
        lent[...] = np.frombuffer(raw, dtype).reshape(SHAPE)

    for call in (user, ours):
        lent[...] = 0
        call()
        if not np.array_equal(lent, image):
            raise PipelineError(f"bench decode: {call.__name__} decoded another image")
    alone = partial(decompress, chunk, "bslz4", elem_size=size)
    contenders: dict[str, Callable[[], object]] = {"decoder": alone, "user": user, "ours": ours}
    samples = interleaved(contenders, rounds=ROUNDS, budget_s=BUDGET_S)
    ms = {name: float(np.percentile(taken, 10)) / 1e6 for name, taken in samples.items()}
    return Row(
        dtype=dtype.str[1:],
        mean=mean,
        compression=image.nbytes / len(chunk),
        decoder_ms=ms["decoder"],
        user_ms=ms["user"],
        ours_ms=ms["ours"],
        user_copies=_allocated(user) / image.nbytes,
        our_copies=_allocated(ours) / image.nbytes,
        samples_ns=samples,
    )


def _compressed(image: NDArray[Any]) -> bytes:
    with h5py.File("decode", "w", driver="core", backing_store=False) as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        data = file.create_dataset("d", data=image[None], chunks=(1, *image.shape), **filters)
        file.flush()
        return bytes(data.id.read_direct_chunk((0, 0, 0))[1])


def _allocated(call: Callable[[], object]) -> int:
    """Return how many bytes `call` holds at most."""
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak
