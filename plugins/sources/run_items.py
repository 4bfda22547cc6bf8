"""Which items a run of files has: from the index of trains and pulses, before anything is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.ledger import Gaps
from phasewatch.plugins.sources.axes import MAX_PULSES
from phasewatch.plugins.sources.trains import pulse_id

Int64 = NDArray[np.int64]
_SLICE = re.compile(r"(\d{0,18})(?::(\d{0,18})(?::([1-9]\d{0,9}))?)?")


def parse_slice(text: str | None, key: str) -> slice:
    """Return ``START:STOP``, ``START:STOP:STEP`` or a single number as a slice; None is all.

    Raises
    ------
    PipelineError
        It is none of these; `key` is named.
    """
    if text is None:
        return slice(None)
    found = _SLICE.fullmatch(text)
    if not text or found is None:
        raise PipelineError(f'{key} = "{text}": not START:STOP, START:STOP:STEP or a number')
    if ":" not in text:
        return slice(int(text), int(text) + 1)
    return slice(*(int(n) if n else None for n in found.groups()))


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the pulses of a train of one module are: `count` rows from `first` in `file`."""

    file: Any
    first: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """The items of a run, in the order of trains and pulses.

    Attributes
    ----------
    train, pulse
        (n,) train id and position in the train of each.
    ids
        (n,) see `phasewatch.plugins.sources.trains`.
    expected
        Items there would be if each train had as many as the fullest, and none was missing.
    """

    train: Int64
    pulse: Int64
    ids: Int64
    expected: int


def items_of(
    trains: Sequence[int], modules: Sequence[Mapping[int, Rows]], pulses: slice, *, all_trains: bool
) -> Items:
    """Return the items of `trains` that `modules` have, by train.

    Where modules differ, all the pulses that any of them has are items. With `all_trains` those
    that are in no file between the first and the last are expected too.

    Raises
    ------
    PipelineError
        There are none, or more pulses in a train than can be.
    """
    none = Rows(None, 0, 0)
    counts = [max(module.get(train, none).count for module in modules) for train in trains]
    most = max(counts, default=0)
    if most > MAX_PULSES:
        full = trains[counts.index(most)]
        raise PipelineError(f"train {full} has {most} pulses by its index, at most {MAX_PULSES}")
    taken = np.arange(most)[pulses]
    which, position = np.nonzero(taken < np.array(counts, np.int64)[:, None])
    if not len(which):
        raise PipelineError(f"no images in {len(trains)} trains of at most {most} pulses")
    train = np.array(trains, np.int64)
    missing = Gaps()
    if all_trains:
        missing.add(train)
    return Items(
        train[which],
        taken[position],
        pulse_id(train[which], position, len(taken)),
        len(taken) * (len(trains) + missing.missed),
    )
