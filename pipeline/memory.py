"""What a tracker remembers of a run, as bytes: another one goes on from them, to the last bit.

It is small (about 0.5 kB): the sums of the ledger, the rows of failures, the state of the fold.
"""

from dataclasses import dataclass
from typing import Any

import msgpack

from phasewatch.pipeline.ambiguity import Ambiguity, Boundary
from phasewatch.pipeline.ledger import Ledger
from phasewatch.pipeline.tracker import State


@dataclass(frozen=True, slots=True)
class Memory:
    """The ledger, the rows of failed items (now, longest), and the fold (None: no classes).

    `resets`: how many times the fold began anew because a user asked for it.
    """

    ledger: Ledger
    row: int = 0
    longest_row: int = 0
    fold: State | None = None
    resets: int = 0


def dump(memory: Memory) -> bytes:
    """Return `memory` as msgpack, floats in all their bits."""
    rows = memory.row, memory.longest_row
    fold = None if memory.fold is None else _plain(memory.fold)
    packed: bytes = msgpack.packb((memory.ledger.dump(), rows, fold, memory.resets))
    return packed


def load(data: bytes) -> Memory:
    """Return what `dump` made bytes of; `data` come from a process of this run."""
    plain = msgpack.unpackb(data, strict_map_key=False, use_list=False)
    ledger, (row, longest), fold, resets = plain
    state = None if fold is None else _fold(fold)
    return Memory(Ledger.load(ledger), row, longest, state, resets)


def _plain(fold: State) -> tuple[Any, ...]:
    """Return all fields in order (`dataclasses.asdict` takes ten times as long)."""
    a = fold.ambiguity
    boundaries = [(b.after, b.after_seq, b.unbroken, b.before, b.before_seq) for b in a.boundaries]
    ambiguity = boundaries, a.n, a.last_seq, sorted(a.seen)
    return ambiguity, fold.posterior, fold.phase, fold.unknown


def _fold(plain: tuple[Any, ...]) -> State:
    (boundaries, n, last_seq, seen), posterior, phase, unknown = plain
    known = tuple(Boundary(*b) for b in boundaries)
    return State(Ambiguity(known, n, last_seq, frozenset(seen)), posterior, phase, unknown)
