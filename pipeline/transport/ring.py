"""The items of a run in memory that the processes of one host share, each written once.

The supervisor makes an anonymous file in memory (`memfd_create`) and hands it down to its children,
so nothing has a name that could be left behind: when the last process has gone, a crash included,
the memory has too. The receiver lays it out and writes; the others map it read-only.

A slot holds one item: the same index in every array, so items in slots that follow one another are
arrays (n, ...) without a copy. Beside it are its books, from which a receiver that is started again
goes on: which item it is, whether it is held, and how often the slot was used (its generation: a
descriptor that names another one is stale).
"""

import json
import math
import mmap
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError

MAGIC = b"pwring01"
PAGE = 4096
N_BOOKS = 6  # generation, held, seq, id, t_acq, received
TALLY = ("received", "acknowledged", "missed", "last_id", "timed")
DEFAULT_BYTES, FEWEST, MOST = 512 << 20, 16, 1024

Array = NDArray[Any]
Int64 = NDArray[np.int64]


def new_memory() -> int:
    """Return the descriptor of new shared memory, empty, for children to inherit."""
    return os.memfd_create("phasewatch-ring", os.MFD_CLOEXEC)


def default_slots(items: Mapping[str, ItemSpec]) -> int:
    """Return how many items fit in `DEFAULT_BYTES`, within `FEWEST` and `MOST`."""
    return max(FEWEST, min(MOST, DEFAULT_BYTES // max(1, sum(map(_nbytes, items.values())))))


class Ring:
    """Shared slots. Attributes: `arrays` by name (n_slots, ...), and the books (n_slots,) int64.

    `note` are bytes that the receiver keeps for the one that may come after it.
    """

    def __init__(self, memory: mmap.mmap, layout: dict[str, Any]) -> None:
        self.n = int(layout["slots"])
        at = _pages(16 + layout["header"])
        self.note = memory[at : at + layout["note"]]
        at += _pages(layout["note"])
        whole = np.frombuffer(memory, np.uint8)
        n_books = N_BOOKS * self.n
        numbers = whole[at : at + 8 * (n_books + len(TALLY))].view(np.int64)
        books: Int64 = numbers[:n_books].reshape(N_BOOKS, self.n)
        self.generation, self.held, self.seq, self.id, self.t_acq, self.received = books
        self._tally = numbers[n_books:]
        at += _pages(numbers.nbytes)
        self.arrays: dict[str, Array] = {}
        for name, (shape, dtype) in layout["items"].items():
            nbytes = self.n * math.prod(shape) * np.dtype(dtype).itemsize
            self.arrays[name] = whole[at : at + nbytes].view(dtype).reshape(self.n, *shape)
            at += _pages(nbytes)
        self._lock = threading.Condition()
        # Of a copy: in a worker it changes meanwhile, which numpy answers with an error.
        self._taken = set(np.flatnonzero(self.held.copy()).tolist())
        self._next = 0

    @classmethod
    def create(cls, fd: int, items: Mapping[str, ItemSpec], *, slots: int, note: bytes) -> "Ring":
        """Lay out the memory `fd`.

        Raises
        ------
        PipelineError
            There is not that much memory.
        """
        layout: dict[str, Any] = {
            "slots": slots,
            "items": {k: [list(v.shape), v.dtype] for k, v in items.items()},
            "note": len(note),
        }
        header = json.dumps(layout).encode()
        arrays = sum(_pages(slots * _nbytes(spec)) for spec in items.values())
        books = _pages(8 * (N_BOOKS * slots + len(TALLY)))
        size = _pages(16 + len(header)) + _pages(len(note)) + books + arrays
        too_much = f"[runtime] ring: {slots} items are {size >> 20} MiB of shared memory; "
        if size > _available():  # allocating it would have the system kill somebody
            raise PipelineError(f"{too_much}{_available() >> 20} MiB are available")
        try:
            os.ftruncate(fd, size)
            os.posix_fallocate(fd, 0, size)  # else a full memory is a signal in the middle of a run
        except OSError as error:
            raise PipelineError(f"{too_much}{error.strerror}") from None
        memory = mmap.mmap(fd, size)
        at = _pages(16 + len(header))
        memory[at : at + len(note)] = note
        memory[8 : 16 + len(header)] = len(header).to_bytes(8, "little") + header
        memory[:8] = MAGIC
        return cls.attach(fd, writable=True)

    @staticmethod
    def laid_out(fd: int) -> bool:
        """Tell whether a receiver has come so far as to lay out `fd`."""
        return os.fstat(fd).st_size >= PAGE and os.pread(fd, len(MAGIC), 0) == MAGIC

    @classmethod
    def attach(cls, fd: int, *, writable: bool = False) -> "Ring":
        """Map what a receiver has laid out in `fd`."""
        if not cls.laid_out(fd):
            raise PipelineError("the shared memory is not a ring of this version")
        size = os.fstat(fd).st_size
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        memory = mmap.mmap(fd, size, flags=flags, prot=access)
        length = int.from_bytes(memory[8:16], "little")
        return cls(memory, {**json.loads(memory[16 : 16 + length]), "header": length})

    def tally(self, name: str) -> int:
        """Return one of the numbers in `TALLY`."""
        return int(self._tally[TALLY.index(name)])

    def note_tally(self, **numbers: int) -> None:
        """Set numbers of `TALLY`."""
        for name, number in numbers.items():
            self._tally[TALLY.index(name)] = number

    def acquire(self, n: int) -> range:
        """Return at most `n` free slots that follow one another; none if there is none."""
        with self._lock:
            return self._acquire(n)

    def wait(self, n: int, go_on: Callable[[], bool]) -> range:
        """Return slots as `acquire` does, waiting for one while `go_on()`; from another thread."""
        with self._lock:
            while not (slots := self._acquire(n)) and go_on():
                self._lock.wait(0.1)
            return slots

    @property
    def owed(self) -> Int64:
        """The slots that hold items, in order of seq."""
        held = np.flatnonzero(self.held)
        return held[np.argsort(self.seq[held])]

    def commit(
        self, slots: range, seq: int, ids: Int64, t_acq: Int64 | None, received: Int64 | int = 0
    ) -> None:
        """Say that `slots` hold the items from `seq` on: from here they survive the receiver."""
        part = slice(slots.start, slots.stop)
        self.received[part] = received
        self.seq[part] = np.arange(seq, seq + len(slots))
        self.id[part] = ids
        if t_acq is not None:
            self.t_acq[part] = t_acq
        self.generation[part] += 1
        self.held[part] = 1

    def release(self, slots: Iterable[int]) -> None:
        """Free `slots`."""
        with self._lock:
            for slot in slots:
                self.held[slot] = 0
                self.generation[slot] += 1  # from here on it may be written anew
                self._taken.discard(slot)
            self._lock.notify_all()

    def slots_of(self, arrays: Mapping[str, Array]) -> range | None:
        """Return the slots that `arrays` are views of; None if any is other memory."""
        found: set[range] = set()
        for name, array in arrays.items():
            mine = self.arrays.get(name)
            if mine is None or array.ndim == 0:
                return None
            offset = array.__array_interface__["data"][0] - mine.__array_interface__["data"][0]
            first, within = divmod(offset, mine.strides[0]) if mine.strides[0] else (0, 1)
            if within or not 0 <= first < self.n or not array.flags.c_contiguous:
                return None
            found.add(range(first, first + len(array)))
        return found.pop() if len(found) == 1 else None

    def _acquire(self, n: int) -> range:
        if len(self._taken) == self.n:
            return range(0)
        first = self._next % self.n
        while first in self._taken:  # cyclic, so that what comes in a row lies in a row
            first = (first + 1) % self.n
        stop = first + 1
        while stop < min(self.n, first + n) and stop not in self._taken:
            stop += 1
        self._taken.update(range(first, stop))
        self._next = stop
        return range(first, stop)


def _available() -> int:
    """Return the bytes of memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib << 10


def _nbytes(spec: ItemSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE
