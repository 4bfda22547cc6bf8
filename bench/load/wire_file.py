"""Recorded traffic: every multipart message as it came, with the time at which it came.

    file    = "PWWIRE1" newline message*
    message = arrival int64 (CLOCK_MONOTONIC, ns), number of parts uint32, part*
    part    = length uint64, bytes

all little-endian. Nothing is interpreted. A file that ends within a message (the recording was cut
off) is good up to there.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from phasewatch.pipeline.errors import PipelineError

MAGIC = b"PWWIRE1\n"
MAX_PARTS, MAX_PART = 1024, 1 << 28
_HEAD, _LENGTH = struct.Struct("<qI"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class WireMessage:
    """The parts of one message, and when it arrived (CLOCK_MONOTONIC of that host, ns)."""

    arrival_ns: int
    parts: tuple[bytes, ...]


def write_head(file: BinaryIO) -> None:
    """Begin a recording."""
    file.write(MAGIC)


def size_of(parts: Sequence[bytes]) -> int:
    """Return how many bytes a message takes in the file."""
    return _HEAD.size + sum(_LENGTH.size + len(part) for part in parts)


def write_message(file: BinaryIO, arrival_ns: int, parts: Sequence[bytes]) -> None:
    """Append a message."""
    if len(parts) > MAX_PARTS or any(len(part) > MAX_PART for part in parts):
        raise PipelineError(
            f"a message of {len(parts)} parts, {sum(map(len, parts))} bytes cannot be recorded"
        )
    file.write(_HEAD.pack(arrival_ns, len(parts)))
    for part in parts:
        file.write(_LENGTH.pack(len(part)))
        file.write(part)


def read_messages(path: Path) -> Iterator[WireMessage]:
    """Yield the messages of a recording, one in memory at a time.

    Raises
    ------
    PipelineError
        It is not a recording, or it is damaged.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise PipelineError(f"file {path}: not a recording of phasewatch bench record")
        while (message := _message(file, size, path)) is not None:
            yield message


def _message(file: BinaryIO, size: int, path: Path) -> WireMessage | None:
    at = file.tell()
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    arrival, n = _HEAD.unpack(head)
    if n > MAX_PARTS:
        raise PipelineError(f"file {path}: byte {at}: a message of {n} parts; at most {MAX_PARTS}")
    parts = []
    for _ in range(n):
        length = file.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            return None
        (claimed,) = _LENGTH.unpack(length)
        if claimed > MAX_PART:
            raise PipelineError(f"file {path}: byte {at}: a part of {claimed} bytes")
        if claimed > size - file.tell():  # cut off: nothing is allocated for it
            return None
        parts.append(file.read(claimed))
    return WireMessage(arrival, tuple(parts))
