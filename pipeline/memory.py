"""What a tracker remembers of a run, as bytes: another one goes on from them, to the last bit.

It is small (about 0.5 kB): the sums of the ledger, the rows of failures, the state of the fold.
"""

from dataclasses import asdict, dataclass
from typing import Any

import msgpack

from phasewatch.pipeline.ambiguity import Ambiguity, Boundary
from phasewatch.pipeline.ledger import Ledger
from phasewatch.pipeline.tracker import State


@dataclass(frozen=True, slots=True)
class Memory:
    """The ledger, the rows of failed items (now, longest), and the fold (None: no classes)."""

    ledger: Ledger
    row: int = 0
    longest_row: int = 0
    fold: State | None = None


def dump(memory: Memory) -> bytes:
    """Return `memory` as msgpack, floats in all their bits."""
    document = {
        "ledger": memory.ledger.dump(),
        "rows": (memory.row, memory.longest_row),
        "fold": None if memory.fold is None else asdict(memory.fold),
    }
    packed: bytes = msgpack.packb(document, default=sorted)  # a set, the only thing it cannot pack
    return packed


def load(data: bytes) -> Memory:
    """Return what `dump` made bytes of; `data` come from a process of this run."""
    document = msgpack.unpackb(data, strict_map_key=False, use_list=False)
    row, longest = document["rows"]
    fold = document["fold"]
    return Memory(
        Ledger.load(document["ledger"]), row, longest, None if fold is None else _fold(fold)
    )


def _fold(fold: dict[str, Any]) -> State:
    ambiguity = fold.pop("ambiguity")
    boundaries = tuple(Boundary(**b) for b in ambiguity.pop("boundaries"))
    seen = frozenset(ambiguity.pop("seen"))
    return State(ambiguity=Ambiguity(boundaries=boundaries, seen=seen, **ambiguity), **fold)
