"""What the server of ASAP::O gives: messages of one or more parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_PARTS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What the server says of one part of a message, and its bytes (n,), if they are wanted."""

    meta: Mapping[str, Any]
    data: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message, or a data set: one part per module, in the order of their substreams."""

    id: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that is known to be, and cannot be had."""

    id: int
    error: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream has no more messages; the name of the next is "" where the producer gave none."""

    next_stream: str


def substream(meta: Mapping[str, Any]) -> int:
    """Return which part of a data set `meta` is of, counted from 1; 0 where it does not say."""
    number = meta.get("dataset_substream")
    return number if type(number) is int else 0


def lacking(number: int, partial: Mapping[str, Any]) -> str:
    """Say which parts of the data set `number` are missing."""
    expected, content = partial.get("expected_size"), partial.get("content")
    came = {substream(meta) for meta in content} if isinstance(content, list) else set()
    if type(expected) is not int or not 0 < expected <= MAX_PARTS:
        return f"data set {number} is not complete"
    absent = [str(k) for k in range(1, expected + 1) if k not in came]
    return f"data set {number}: {len(came)} of {expected} parts; missing: part {', '.join(absent)}"
