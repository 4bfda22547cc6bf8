"""Which labelled patterns are held out of training, in the order of the series.

Of each class with three labels or more every third is held out, from the second on: of 3 or 4
labels one, of 5 to 7 two. So the first and the last label of a class, which say most of where it
ends, are trained on, and the held-out ones lie between patterns that are. Of two labels the second
is held out. A class with one label has nothing to hold out; its loss is that of replicas of the
pattern that is trained on, and says little.
"""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def split(label: Int64) -> tuple[Int64, Int64, tuple[int, ...]]:
    """Split labelled patterns, in the order of their series, into trained and held-out ones.

    Parameters
    ----------
    label
        (n,) the class of each.

    Returns
    -------
    tuple
        Positions of those to train on and of those to hold out, rising; and the classes without a
        held-out pattern, whose only pattern is in both.
    """
    held: list[int] = []
    alone: list[int] = []
    for k in np.unique(label).tolist():
        own = np.flatnonzero(label == k)
        if len(own) == 1:
            alone.append(k)
        else:
            held += own[1::3].tolist()
    train = np.setdiff1d(np.arange(len(label)), held)
    single = [int(np.flatnonzero(label == k)[0]) for k in alone]
    return train, np.array(sorted(held + single), np.int64), tuple(alone)
