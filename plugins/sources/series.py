"""``series:FILE`` and ``xy:FOLDER``: patterns that are already reduced, in their order."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from phasewatch.models.errors import ModelError
from phasewatch.models.series import read_series
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart, Unit
from phasewatch.pipeline.errors import PipelineError
from phasewatch.plugins.sources.items import BLOCK, check_same, pattern_batch


def open_source(target: str, *, unit: Unit | None = None) -> "SeriesSource":
    """Open a series: ``.npz``, a folder of ``.xy``, NeXus, or one of our results.

    Parameters
    ----------
    target
        The file or folder; ``FILE.h5#/path`` where the NXdata is not at ``/entry/patterns``.
    unit
        Of the axis, where the file does not say it.
    """
    return SeriesSource("series", target, unit)


def open_xy(target: str, *, unit: Unit | None = None) -> "SeriesSource":
    """Open a folder of ``.xy`` files; `unit` of their axis where they have no header."""
    if not Path(target).is_dir():
        raise PipelineError(f"xy:{target}: not a folder; it should hold the .xy files")
    return SeriesSource("xy", target, unit)


class SeriesSource:
    """Source of the patterns of one series.

    What was done to the patterns already (``baseline``, ``normalise``) is handed on in the
    settings, so that it is neither done twice nor taken as not done.
    """

    def __init__(self, scheme: str, target: str, unit: Unit | None) -> None:
        self._uri = f"{scheme}:{target}"
        self._target = target
        self._unit = unit
        self._first = 0

    def start(self) -> RunStart:
        """Read the series."""
        try:
            self._series = series = read_series(self._target, unit=self._unit)
        except ModelError as error:
            raise PipelineError(str(error)) from None
        return RunStart(
            run_id=Path(self._target.partition("#")[0]).stem[:128] or "series",
            source=self._uri,
            items={"intensity": ItemSpec.of((len(series.axis),), np.float32)},
            unit=cast(Unit, series.unit),  # one of its names, which are ours
            expected=len(series),
            digests={"series": series.digest},
            settings={"baseline": series.baseline, "normalise": series.normalise},
            constants={"axis": series.axis},
        )

    def resume(self, run: RunStart, n: int) -> None:
        """Go on with `run` after its first `n` patterns."""
        check_same(run, self.start())
        self._first = n

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        """Yield the patterns, some at a time."""
        series = self._series
        for first in range(self._first, len(series), BLOCK):
            block = slice(first, first + BLOCK)
            yield pattern_batch(first, series.ids[block], series.intensity[block])

    def close(self) -> None:
        """Nothing is held open."""
