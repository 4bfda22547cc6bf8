"""Trains of an X-ray laser: how the pulses in them are numbered, and when they were.

A run has so many pulses in each train, those of its first. The frame of a pulse has the id
``train * pulses_per_train + pulse``, where ``pulse`` is its position in the train: so ids are
unique and consecutive, a train that is missing is a gap of just its pulses, and where there is one
frame to a train the id is the train id.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_DIGITS = re.compile(r"[0-9]{1,18}")
NS, ATTO_PER_NS = 10**9, 10**9


Number = TypeVar("Number", int, NDArray[np.int64])


def pulse_id(train: Number, pulse: Number, pulses_per_train: int) -> Number:
    """Return the id of the frame of `pulse` (from 0) in `train`."""
    return train * pulses_per_train + pulse


def time_of(metadata: Mapping[str, Any]) -> int | None:
    """Return when, in ns UTC, from ``timestamp.sec`` and ``timestamp.frac`` (attoseconds).

    Both may be integers or texts of one. None where they are not there or say nothing: a stream
    from files has none, and none is made up.
    """
    seconds = _number(metadata.get("timestamp.sec"))
    fraction = _number(metadata.get("timestamp.frac"))
    if not seconds or fraction is None or seconds >= 1 << 33:
        return None
    return seconds * NS + fraction // ATTO_PER_NS


def _number(said: Any) -> int | None:
    if isinstance(said, str) and _DIGITS.fullmatch(said):
        return int(said)
    return said if type(said) is int and 0 <= said < 10**18 else None
