"""Messages of the modules of one detector, on a socket each, put together by their number.

Within a socket order is kept, between sockets it is not. A set that is not whole is given up when
`WINDOW` younger ones have begun: nothing is waited for for ever, and no clock is asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# One module may lag 64 ms at 2 kHz; three of 1.6 MB a frame, not compressed, then hold 0.6 GB.
WINDOW = 128

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class MessageSet(Generic[T]):
    """What came with `number`, by module, and which message of all it was."""

    number: int
    born: int
    parts: dict[int, T] = field(default_factory=dict)
    came: dict[int, int] = field(default_factory=dict)

    def missing(self, n_modules: int) -> list[int]:
        """Return the modules of which nothing came."""
        return [k for k in range(n_modules) if k not in self.parts]

    def before(self, other: "MessageSet[T]") -> bool:
        """Whether a module sent its message of this set before that of `other`.

        Not whether this set began first: a socket whose messages come early begins all its sets
        before one of which only the others have a message.
        """
        common = self.came.keys() & other.came.keys()
        if not common:
            return self.born < other.born
        return any(self.came[k] < other.came[k] for k in common)


class ModuleSets(Generic[T]):
    """Collects sets of `n_modules` messages."""

    def __init__(self, n_modules: int) -> None:
        self._n = n_modules
        self._born = self._came = 0
        self._open: dict[int, MessageSet[T]] = {}  # oldest first

    def add(self, module: int, number: int, part: T) -> Iterator[MessageSet[T]]:
        """Take the message `number` of `module`; yield what is given up, then its set if whole."""
        whole = self._open.get(number)
        if whole is None:
            whole = self._open[number] = MessageSet(number, self._born)
            self._born += 1
            oldest = next(iter(self._open.values()))
            if self._born - oldest.born > WINDOW:
                yield self._open.pop(oldest.number)
        self._came += 1
        whole.parts[module], whole.came[module] = part, self._came
        if len(whole.parts) == self._n:
            yield self._open.pop(number)

    def flush(self, before: MessageSet[T] | None = None) -> Sequence[MessageSet[T]]:
        """Give up the sets that are open, or those before one; return them as they began."""
        left = [s for s in self._open.values() if before is None or s.before(before)]
        for one in left:
            del self._open[one.number]
        return left
