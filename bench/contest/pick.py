"""Which patterns of a series a contender is given labels for."""

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.experiment import AFTER_ABOVE, BEFORE_BELOW

Int64 = NDArray[np.int64]

LABELLED = 31  # at most, of a simulated run: as many as the thesis labelled
STEP = 10  # every tenth, as in the thesis
PER_CLASS = 5  # fewer than this in a class, and the step is smaller
LABELLED_REAL = 10
CLEAR_SHARE = (
    0.9  # of the first and the last class the tenth next to the transition is not labelled
)


def every_tenth(fraction: NDArray[np.float64]) -> Int64:
    """Return the patterns (<= 31,) of a simulated run that are labelled: clear ones, each tenth.

    Clear of the transition is where less than 1 % or more than 99 % of the sample is in the
    high-pressure phase. A run too short for five labels a class by tenths is labelled in the
    largest smaller steps that give them; of more than 31 patterns, 31 at equal distances are taken.

    Parameters
    ----------
    fraction
        (n,) of the high-pressure phase.
    """
    clear = (fraction < BEFORE_BELOW) | (fraction > AFTER_ABOVE)
    late = fraction > AFTER_ABOVE
    for step in range(STEP, 0, -1):
        index = np.arange(0, len(fraction), step)
        index = index[clear[index]]
        n_late = int(late[index].sum())
        if min(n_late, len(index) - n_late) >= PER_CLASS:
            break
    if len(index) > LABELLED:
        index = index[np.linspace(0, len(index) - 1, LABELLED).round().astype(int)]
    return index.astype(np.int64)


def evenly(label: Int64, k: int = LABELLED_REAL) -> Int64:
    """Return the positions (<= k,) of `label` (n,) to learn from, evenly spread over its classes.

    The classes share `k`, each at least one; within a class they lie at equal distances. Of the
    first and the last class the tenth next to the transition is left out.
    """
    present = np.unique(label)
    picked: list[int] = []
    for position, c in enumerate(present):
        share = max(1, k // len(present) + (position < k % len(present)))
        at = np.flatnonzero(label == c)
        clear = max(1, int(np.ceil(CLEAR_SHARE * len(at))))
        if position == 0:
            at = at[:clear]
        elif position == len(present) - 1:
            at = at[-clear:]
        picked += at[((np.arange(share) + 0.5) / share * len(at)).astype(int)].tolist()
    return np.array(sorted(set(picked)), np.int64)
