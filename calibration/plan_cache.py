"""Plans kept on disk, so that a restart does not make them again.

One ``.npz`` file for each key (a digest of all that the plan depends on) in the folder ``plans`` of
PHASEWATCH_CACHE, or else of ``phasewatch`` in XDG_CACHE_HOME or ~/.cache. An empty PHASEWATCH_CACHE
keeps nothing. Whatever cannot be read or is not what it should be is made anew.
"""

import hashlib
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from phasewatch.calibration.plan import Prepared

Arrays = dict[str, NDArray[Any]]

FORMAT = 2  # one more when what a plan holds changes its meaning
MAX_BYTES = 4 << 30  # a plan of a 2M detector has 50 to 120 MB

# What numpy and zipfile raise for a file that is not, or no longer, an .npz of plain arrays.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)

_log = logging.getLogger(__name__)


def folder() -> Path | None:
    """Return the folder of the plans, or None where none are kept."""
    given = os.environ.get("PHASEWATCH_CACHE")
    if given is not None:
        return Path(given) / "plans" if given else None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "phasewatch" / "plans"


def cached(
    digest: str, n_pixels: int, sizes: tuple[int, ...], make: Callable[[], Prepared]
) -> Prepared:
    """Return what is kept under `digest`, or else what `make` makes, and keep that.

    `n_pixels` and `sizes` are those of the detector and the axes: a file that has others is none.
    """
    where = folder()
    if where is None:
        return make()
    text = f"{FORMAT} {version('pyFAI')} {digest}"
    path = where / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"
    try:
        with path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        prepared = Prepared.from_arrays(arrays, n_pixels, sizes)
        os.utime(path)  # the oldest go first
        return prepared
    except FileNotFoundError:
        pass
    except UNREADABLE as error:
        _log.warning("plan %s is not used: %s", path, error)
    prepared = make()
    try:
        _keep(path, prepared.arrays())
    except OSError as error:
        _log.warning("plan %s is not kept: %s", path, error)
    return prepared


def _keep(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(file, allow_pickle=False, **arrays)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
    kept = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0
    for old in kept:
        total += old.stat().st_size
        if total > MAX_BYTES and old != path:
            old.unlink(missing_ok=True)
