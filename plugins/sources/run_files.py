"""A run of files of European XFEL's format, opened by EXtra-data: trains, rows and times."""

from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.plugins.sources.names import listed
from phasewatch.plugins.sources.run_items import Rows

MAX_TRAIN = 1 << 50  # where there is a larger number there was no train; it is known to occur

_log = structlog.get_logger(__name__)


def open_run(path: Path) -> Any:
    """Open a folder or a file with EXtra-data.

    Raises
    ------
    PipelineError
        EXtra-data is not installed, or can make nothing of it.
    """
    try:
        import extra_data
    except ImportError:
        raise PipelineError(
            "EXtra-data is not installed: pip install 'phasewatch[facility]'"
        ) from None
    if not path.exists():
        raise PipelineError("there is no such file or folder")
    try:
        if path.is_file():
            return extra_data.H5File(str(path))
        run = extra_data.RunDirectory(str(path), parallelize=False)
    except Exception as error:  # of whatever kind: Exception itself, where no file can be read
        raise PipelineError(f"no run of European XFEL's format ({one_line(error)})") from None
    opened = {Path(file.filename).name for file in run.files}
    skipped = {file.name for file in path.glob("*.h5")} - opened
    if skipped and not any(name.lower() == "overview.h5" for name in opened):
        _log.warning("files cannot be read", run=str(path), files=listed(skipped))
    return run


def selected(train_ids: Any, by_position: slice, by_id: slice) -> list[int]:
    """Return which of `train_ids`; steps of ids count from the first that is asked for."""
    chosen = [int(t) for t in train_ids if t < MAX_TRAIN][by_position]
    start = by_id.start or 0
    return [
        t
        for t in chosen
        if t >= start
        and (by_id.stop is None or t < by_id.stop)
        and (t - start) % (by_id.step or 1) == 0
    ]


def rows_of(data: Any) -> dict[int, Rows]:
    """Return where the images of each train are, by train id, of a key as EXtra-data has it."""
    found = {}
    for file in data.files:
        firsts, counts = file.get_index(data.source, data.index_group)
        for train, first, count in zip(file.train_ids, firsts, counts, strict=True):
            found[int(train)] = Rows(file, int(first), int(count))
    return found


def times_of(run: Any, train: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return when each of `train` was, ns UTC; None unless the files know it of all of them."""
    order = np.array(run.train_ids, np.uint64)
    stamps = run.train_timestamps()[np.searchsorted(order, train.astype(np.uint64))]
    if np.isnat(stamps).any():
        return None
    times: NDArray[np.int64] = stamps.astype(np.int64)
    return times
