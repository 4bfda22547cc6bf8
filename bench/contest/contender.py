"""What a contender is once it has learnt: something that classifies a series."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models import ModelError
from phasewatch.models.gaps import bridge, fault
from phasewatch.models.series import Series

Int64 = NDArray[np.int64]
Progress = Callable[[int, int, float | None], None]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a contender says of a series.

    Attributes
    ----------
    index
        (n,) the patterns that can be used; all else is in their order.
    label
        (n,) the class of each.
    probability
        (n, n_classes), or None of a method that gives none.
    """

    index: Int64
    label: Int64
    probability: NDArray[Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A contender that has learnt.

    Attributes
    ----------
    classify
        Says what a whole series is.
    one
        Classifies pattern i of a series, called with i = 0, 1, ... in turn; None of a method that
        needs the whole series.
    n_parameters, epochs
        None where the words mean nothing.
    notes
        More for the report.
    """

    classify: Callable[[Series], Answer]
    one: Callable[[Series], Callable[[int], object]] | None
    n_parameters: int | None
    epochs: int | None
    notes: dict[str, Any]


def usable(series: Series) -> Int64:
    """Return the patterns (n,) of `series` that can be classified.

    Raises
    ------
    ModelError
        There is none.
    """
    faults = [fault(pattern) for pattern in series.intensity]
    index = np.array([i for i, why in enumerate(faults) if why is None], np.int64)
    if not len(index):
        raise ModelError(f"{series.source}: no pattern can be used; pattern 0: {faults[0]}")
    return index


def whole(series: Series, index: Int64) -> NDArray[np.float32]:
    """Return the patterns `index` (n,) of `series`, their empty bins bridged."""
    return bridge(series.intensity[index])
