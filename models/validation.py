"""Which labelled patterns are held out of training, in the order of the series.

Of a class with `FEWEST` labels or more every third is held out, from the second on: of 5 to 7 two.
So the first label of a class is trained on, and the last but of 5, 8, 11 labels and so on; what is
held out is trained on in the end (`phasewatch.models.fitting`). A class with fewer labels has none
to spare: replicas of its own patterns are tried instead, which says when it is learnt but not how
well.
"""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# Ten labels of three classes, 3 of them held out: the CNN's loss on these was least after 2 or 22
# epochs, depending on the seed, and its accuracy 24 or 98 %. On replicas it is trained for 58.
FEWEST = 5


def split(label: Int64) -> tuple[Int64, Int64, Int64]:
    """Split labelled patterns, in the order of their series, into trained and held-out ones.

    Parameters
    ----------
    label
        (n,) the class of each.

    Returns
    -------
    tuple
        Positions of the patterns to train on, of those to hold out, and of those of which replicas
        are tried, since their class has none held out; each rising.
    """
    held: list[int] = []
    spared: list[int] = []
    for k in np.unique(label):
        own = np.flatnonzero(label == k).tolist()
        if len(own) < FEWEST:
            spared += own
        else:
            held += own[1::3]
    train = np.setdiff1d(np.arange(len(label)), held)
    return train, np.array(sorted(held), np.int64), np.array(sorted(spared), np.int64)
