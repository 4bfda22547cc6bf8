"""Part files while they are being written: which of them are at rest, and what those hold.

Size and time of the files are polled, since no network disk tells of changes that another host
made. A part is read when they are the same at two looks in a row, and again only after they have
changed. What cannot be opened yet, or is not there while a later part is, is waited for: its module
is not taken to be beyond it before it has been at rest for `PATIENCE_S`.

Nothing relies on SWMR: the detector's files are written without it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.frames import Rows, open_file
from phasewatch.plugins.sources.items import DAMAGED
from phasewatch.plugins.sources.lambda_files import DETECTOR, Key, PartFile, pairs, read_part
from phasewatch.plugins.sources.lambda_index import check_alike

PATIENCE_S = 10.0  # NFS shows a file's new size after up to 3 s (acregmin), most often

Signature = tuple[int, int, int]  # size, time of change in ns, inode

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    """One part, as it was when last looked at.

    `is_now` is None where it is not there, since `since`; `part` is what was read when it was
    `was`, and `first` the digest of its first frame then.
    """

    is_now: Signature | None
    since: float
    part: PartFile | None = None
    was: Signature | None = None
    first: str = ""
    problem: str = ""


class PartWatch:
    """Reads the parts of the modules 1 .. `modules` as they come to rest.

    Attributes
    ----------
    changed
        When anything last changed, by `clock`.
    """

    def __init__(self, modules: int, clock: Callable[[], float]) -> None:
        self.modules = tuple(range(1, modules + 1))
        self.changed = clock()
        self._clock = clock
        self._paths: dict[Key, Path] = {}
        self._seen: dict[Key, _Seen] = {}
        self._heads: dict[int, PartFile] = {}  # the first that was read

    def look(self, files: Mapping[Key, Path]) -> list[PartFile]:
        """Look at all files once more, and at those that are new; return what was read.

        Raises
        ------
        PipelineError
            A file that was read is another by now, or of a module that should not be.
        """
        new = {key: path for key, path in files.items() if key not in self._paths}
        for module in sorted({module for module, _ in new}):
            if module not in self.modules:
                raise PipelineError(
                    f"modules are numbered from 1 to {len(self.modules)}; there is module {module}:"
                    f" {next(path for (m, _), path in new.items() if m == module)}"
                )
        self._paths |= pairs(new, self.modules)
        read = [self._look_at(key, path) for key, path in sorted(self._paths.items())]
        return [part for part in read if part is not None]

    def parts(self) -> dict[Key, PartFile]:
        """Return the parts that were read, as they were then."""
        found = ((key, self._seen[key].part) for key in sorted(self._seen))
        return {key: part for key, part in found if part is not None}

    def problems(self) -> dict[Key, str]:
        """Return why the other parts were not."""
        return {
            key: seen.problem or f"file {self._paths[key]} not found"
            for key, seen in self._seen.items()
            if seen.part is None
        }

    def paths(self) -> dict[Key, Path]:
        """Return where each module's file of each part is, or should be."""
        return self._paths

    def heads(self) -> dict[int, PartFile]:
        """Return the first part of each module that holds a frame."""
        found: dict[int, PartFile] = {}
        for (module, _), part in self.parts().items():
            if min(part.rows, len(part.numbers)):
                found.setdefault(module, part)
        return found

    def first_frames(self) -> str:
        """Return a digest that tells this run from another of the same name and numbers."""
        digests = {m: s.first for (m, _), s in sorted(self._seen.items(), reverse=True) if s.first}
        return hashlib.sha256("".join(digests[m] for m in self.modules).encode()).hexdigest()

    def beyond(self) -> dict[int, int | None]:
        """Return the highest number that each module has written with all parts before decided."""
        best: dict[int, int | None] = dict.fromkeys(self.modules)
        stopped = set()
        for key, seen in sorted(self._seen.items(), key=lambda item: item[0]):
            module = key[0]
            if module in stopped:
                continue
            if seen.part is not None and (n := min(seen.part.rows, len(seen.part.numbers))):
                top = int(seen.part.numbers[:n].max())
                best[module] = max(top, best[module] or top)
            if not self._decided(seen):
                stopped.add(module)
        return best

    def at_rest(self) -> bool:
        """Tell whether all parts have been read, or waited for long enough."""
        return all(self._decided(seen) for seen in self._seen.values())

    def _decided(self, seen: _Seen) -> bool:
        if seen.part is not None and seen.is_now == seen.was:
            return True
        return self._clock() - seen.since >= PATIENCE_S

    def _look_at(self, key: Key, path: Path) -> PartFile | None:
        now, is_now = self._clock(), _signature(path)
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(is_now, now)
            self.changed = now
        elif seen.is_now != is_now:
            seen.is_now, seen.since = is_now, now
            self.changed = now
        elif is_now not in (None, seen.was) and now - seen.since < PATIENCE_S + 1:
            return self._read(key, path, seen)
        return None

    def _read(self, key: Key, path: Path, seen: _Seen) -> PartFile | None:
        was = seen.is_now
        assert was is not None
        try:
            part, first = read_part(path), _digest(path)
            check_alike(part, self._heads.setdefault(key[0], part))
        except DAMAGED as error:  # a PipelineError is a ValueError
            seen.problem = str(error)
            if seen.was is not None and was[0] < seen.was[0]:
                raise PipelineError(
                    f"file {path} has shrunk from {seen.was[0]} to {was[0]} bytes and cannot be "
                    f"read any more: is another run of this name being written?"
                ) from None
            return None
        if seen.part is not None:
            _check_same(seen.part, part, seen.first, first)
        if _signature(path) != was:  # it was being written while it was read
            return None
        seen.part, seen.was, seen.first, seen.problem = part, was, first, ""
        self.changed = self._clock()
        return part


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:  # not there, or the network disk is not, just now
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _digest(path: Path) -> str:
    """Return a digest of the first frame, "" where there is none yet."""
    with open_file(path) as file:
        data = file[f"{DETECTOR}/data"]
        if not data.shape[0]:
            return ""
        frame = np.empty((1, *data.shape[1:]), data.dtype)
        Rows(data).read(0, frame)
        return hashlib.sha256(frame.tobytes()).hexdigest()


def _check_same(before: PartFile, now: PartFile, first: str, first_now: str) -> None:
    """Check that `now` is `before`, or goes on with it."""
    n = min(before.rows, len(before.numbers))
    fewer = min(now.rows, len(now.numbers)) < n
    if fewer or (now.numbers[:n] != before.numbers[:n]).any() or (first and first != first_now):
        raise PipelineError(
            f"file {now.path} is not the one that was read before, with "
            + (f"{now.rows} frames in place of {n}" if fewer else "other frames")
            + ": another run of this name? Give each run a name of its own"
        )
