"""Messages on a socket: one msgpack header, then one raw little-endian C-order part per array.

The header is ``{"v": 2, "body": {...}, "arrays": [[name, dtype, shape], ...]}``. The body is one of
the models in `phasewatch.pipeline.bodies`, told apart by ``type``; unknown fields and another
version are refused. Every message is hostile until `decode` has checked it: claims are compared
with the configured limits and with the parts that came before anything is allocated. No pickle,
anywhere.

In a ``batch``, all int64 columns of `Batch` are one array ``columns`` (k, n), whose rows the body
names: ``seq``, ``ids``, ``t_acq`` (if any), ``stamp/HOP``, and for ``slots``, whose items lie in
shared memory, ``generation``. (A part costs 3 us at each end, and a batch has some nine columns.)
The others are ``array/NAME``; a ``report`` has ``state`` beside them. In a ``start`` they are
``constant/NAME``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.bodies import (
    VERSION,
    BatchBody,
    Body,
    DroppedBody,
    FailedBody,
    Header,
    PackedBody,
    ReportBody,
    SlotsBody,
    StartBody,
)
from phasewatch.pipeline.documents import Packing, RunStart
from phasewatch.pipeline.errors import PipelineError, one_line

ERROR_LENGTH = 500
# In one message: 1000 x (500 + 64 + 20) bytes and 20 000 x 20 bytes are below LIMITS.header_bytes.
MAX_FAILURES, MAX_DROPPED = 1000, 20_000
Array = NDArray[Any]
Part = bytes | memoryview

FIXED = ("seq", "ids", "t_acq", "generation")
DTYPES = {
    name: np.dtype(name)
    for name in ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")
}


class MessageError(PipelineError):
    """A message that is not ours, or not true to its header."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may claim; anything larger is refused unread."""

    header_bytes: int = 1 << 20
    array_bytes: int = 1 << 28
    total_bytes: int = 1 << 29
    arrays: int = 64
    ndim: int = 4


LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A body and the arrays that came with it."""

    body: Body
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def batch(self) -> Batch:
        """Return the batch of a ``batch``, ``slots`` or ``report`` message, checked.

        Of a ``packed`` one: without its frames.
        """
        if not isinstance(self.body, BatchBody | SlotsBody | PackedBody | ReportBody):
            raise MessageError(f"message of type {self.body.type!r} where a batch was due")
        columns = self.columns()
        arrays = {}
        for name, array in self.arrays.items():
            kind, _, key = name.partition("/")
            if kind == "array" and key:
                if array.ndim == 0 or len(array) != self.body.n:
                    raise MessageError(
                        f"array {name!r}: shape {array.shape} for {self.body.n} items"
                    )
                arrays[key] = array
            elif name not in ("columns", "state") and not isinstance(self.body, PackedBody):
                raise MessageError(f"array {name!r} does not belong in a batch")
        if "seq" not in columns or "ids" not in columns:
            raise MessageError("a batch without seq or ids")
        stamps = {name[6:]: column for name, column in columns.items() if name not in FIXED}
        return Batch(columns["seq"], columns["ids"], columns.get("t_acq"), arrays, stamps)

    def columns(self) -> dict[str, NDArray[np.int64]]:
        """Return the columns (n,) of a message that carries items, by name."""
        if not isinstance(self.body, BatchBody | SlotsBody | PackedBody | ReportBody):
            return {}
        names, block = self.body.columns, self.arrays.get("columns")
        if block is None or block.dtype != np.int64 or block.shape != (len(names), self.body.n):
            said = "no array" if block is None else f"{block.dtype} {block.shape}"
            raise MessageError(f"columns: {said}, not int64 {(len(names), self.body.n)}")
        for name in names:
            if name not in FIXED and not (name.startswith("stamp/") and name[6:]):
                raise MessageError(f"column {name!r} does not belong in a batch")
        if len(set(names)) != len(names):
            raise MessageError(f"a column comes twice: {', '.join(names)}")
        return dict(zip(names, block, strict=True))

    def packed(self, n_tiles: int) -> list[list[NDArray[np.uint8]]]:
        """Return the chunks of a ``packed`` message by item and tile.

        Raises
        ------
        MessageError
            It does not have `n_tiles` chunks of bytes for each item, and nothing else.
        """
        if not isinstance(self.body, PackedBody):
            raise MessageError(f"message of type {self.body.type!r} where packed items were due")
        if len(self.arrays) != 1 + self.body.n * n_tiles:
            raise MessageError(f"{len(self.arrays) - 1} chunks for {self.body.n} x {n_tiles} tiles")
        found = []
        for i in range(self.body.n):
            chunks = [self.arrays.get(f"packed/{i}/{k}") for k in range(n_tiles)]
            good = [c for c in chunks if c is not None and c.dtype == np.uint8 and c.ndim == 1]
            if len(good) != n_tiles:
                raise MessageError(f"item {i}: {len(good)} of {n_tiles} chunks of bytes")
            found.append(good)
        return found

    def run(self) -> RunStart:
        """Return the run of a ``start`` message, with its constants."""
        if not isinstance(self.body, StartBody):
            raise MessageError(f"message of type {self.body.type!r} where a start was due")
        constants = {name.removeprefix("constant/"): a for name, a in self.arrays.items()}
        return self.body.run.evolve(constants=constants)


def encode(body: Body, arrays: Mapping[str, Array] | None = None) -> list[Part]:
    """Return the parts of a message; arrays in native order and C layout are not copied."""
    plain = {name: _plain(name, array) for name, array in (arrays or {}).items()}
    header = {
        "v": VERSION,
        "body": body.model_dump(),
        "arrays": [(name, a.dtype.str, a.shape) for name, a in plain.items()],
    }
    parts: list[Part] = [msgpack.packb(header)]
    if len(parts[0]) > LIMITS.header_bytes:
        raise MessageError(f"{body.type}: a header of {len(parts[0])} bytes cannot be sent")
    parts += [a.reshape(-1).view(np.uint8).data if a.size else b"" for a in plain.values()]
    return parts


def encode_batch(run_id: str, batch: Batch) -> list[Part]:
    """Return the parts of a ``batch`` message."""
    names, arrays = columns_of(batch)
    return encode(BatchBody(run_id=run_id, n=len(batch), columns=names), arrays)


def encode_slots(
    run_id: str, batch: Batch, *, slot: int, generation: NDArray[np.int64]
) -> list[Part]:
    """Return the parts of a ``slots`` message: the columns of `batch`; arrays are in the ring."""
    bare = batch.with_arrays(drop=tuple(batch.arrays))
    names, arrays = columns_of(bare, generation=generation)
    return encode(SlotsBody(run_id=run_id, slot=slot, n=len(batch), columns=names), arrays)


def encode_packed(
    run_id: str, batch: Batch, packed: Sequence[Sequence[bytes]]
) -> list[Part] | None:
    """Return the parts of a ``packed`` message, None if it would have more than `LIMITS` allows."""
    names, arrays = columns_of(batch.with_arrays(drop=tuple(batch.arrays)))
    for i, chunks in enumerate(packed):
        for k, chunk in enumerate(chunks):
            arrays[f"packed/{i}/{k}"] = np.frombuffer(chunk, np.uint8)
    if len(arrays) > LIMITS.arrays:
        return None
    return encode(PackedBody(run_id=run_id, n=len(batch), columns=names), arrays)


def columns_of(batch: Batch, **more: NDArray[np.int64]) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Return the names of the columns of `batch` and `more`, and all arrays of its message."""
    columns = {"seq": batch.seq, "ids": batch.ids, **more}
    if batch.t_acq is not None:
        columns["t_acq"] = batch.t_acq
    columns |= {f"stamp/{name}": column for name, column in batch.stamps.items()}
    arrays = {f"array/{name}": array for name, array in batch.arrays.items()}
    return tuple(columns), {"columns": np.array(list(columns.values()), np.int64), **arrays}


def encode_start(run: RunStart, packing: Packing | None = None) -> list[Part]:
    """Return the parts of a ``start`` message."""
    arrays = {f"constant/{k}": a for k, a in run.constants.items()}
    return encode(StartBody(run=run, packing=packing), arrays)


def encode_failed(run_id: str, failures: Sequence[Failure]) -> Iterator[list[Part]]:
    """Yield the parts of ``failed`` messages, as many as it takes; texts are cut."""
    for first in range(0, len(failures), MAX_FAILURES):
        items = tuple(
            (f.seq, f.id, f.stage[:64], f.error[:ERROR_LENGTH])
            for f in failures[first : first + MAX_FAILURES]
        )
        yield encode(FailedBody(run_id=run_id, items=items))


def encode_dropped(run_id: str, dropped: Sequence[Dropped]) -> Iterator[list[Part]]:
    """Yield the parts of ``dropped`` messages, as many as it takes."""
    for reason in dict.fromkeys(d.reason for d in dropped):
        items = tuple((d.seq, d.id) for d in dropped if d.reason == reason)
        for first in range(0, len(items), MAX_DROPPED):
            part = items[first : first + MAX_DROPPED]
            yield encode(DroppedBody(run_id=run_id, items=part, reason=reason))


def decode(parts: Sequence[Any], limits: Limits = LIMITS) -> Message:
    """Check the parts of a message and return it; its arrays are views of the parts.

    Raises
    ------
    MessageError
        Anything that is not a message of ours: one line that says what is wrong.
    """
    if not parts:
        raise MessageError("an empty message")
    views = [memoryview(part).cast("B") for part in parts]
    if views[0].nbytes > limits.header_bytes:
        raise MessageError(f"header of {views[0].nbytes} bytes; at most {limits.header_bytes}")
    header = _header(views[0])
    if len(header.arrays) > limits.arrays:
        raise MessageError(f"{len(header.arrays)} arrays claimed; at most {limits.arrays}")
    if len(header.arrays) != len(views) - 1:
        raise MessageError(f"{len(header.arrays)} arrays claimed, {len(views) - 1} parts came")
    total, arrays = 0, {}
    for (name, dtype, shape), view in zip(header.arrays, views[1:], strict=True):
        if dtype not in DTYPES:
            raise MessageError(f"array {name!r}: dtype {dtype!r} is not one of ours")
        if name in arrays:
            raise MessageError(f"array {name!r} comes twice")
        if len(shape) > limits.ndim:
            raise MessageError(f"array {name!r}: {len(shape)} axes; at most {limits.ndim}")
        if max(shape, default=0) > limits.array_bytes:  # also where another axis is 0
            raise MessageError(f"array {name!r}: an axis of {max(shape)} is over the limit")
        nbytes = math.prod(shape) * DTYPES[dtype].itemsize
        total += nbytes
        if nbytes > limits.array_bytes or total > limits.total_bytes:
            raise MessageError(f"array {name!r} claims {nbytes} bytes: over the limit")
        if nbytes != view.nbytes:
            raise MessageError(f"array {name!r}: {nbytes} bytes claimed, {view.nbytes} came")
        arrays[name] = np.ndarray(shape, DTYPES[dtype], view)
    return Message(header.body, arrays)


def schema() -> dict[str, Any]:
    """Return the JSON schema of the header and all documents."""
    return Header.model_json_schema()


def _plain(name: str, array: Array) -> Array:
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if plain.dtype.str not in DTYPES:
        raise MessageError(f"array {name!r}: dtype {array.dtype} cannot be sent")
    return plain.reshape(array.shape)


def _header(view: memoryview) -> Header:
    try:
        raw = msgpack.unpackb(view, use_list=False, raw=False, max_ext_len=0)
    except Exception as error:  # msgpack raises a dozen kinds, all meaning: not msgpack
        raise MessageError(f"header is not msgpack: {one_line(error)}") from None
    if not isinstance(raw, dict):
        raise MessageError("header is not a map")
    if raw.get("v") != VERSION:
        raise MessageError(f"protocol version {raw.get('v')!r:.20}; this is version {VERSION}")
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"header field {where:.120}: {first['msg']}") from None


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, sort_keys=True))
