"""Ambiguity zones and classification confidence of a labelled series (Sun 2023, eq. 3.1).

Over labels y_0 .. y_(n-1) of ordered classes the boundary between class k and k + 1 is unambiguous
when every label up to some pattern is <= k and every later one is > k. Its ambiguity zone is what
lies strictly between the longest initial run with y <= k and the longest final run with y > k. A
run of length 1 counts by its own label; the published code takes the first and the last pattern as
sure whatever their label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasewatch.models.errors import ModelError


@dataclass(frozen=True, slots=True)
class AmbiguityZone:
    """The patterns with ``after < i < before``, between class `boundary` and ``boundary + 1``.

    `after` is -1 when the series does not begin with a class <= `boundary`, `before` the number of
    patterns when it does not end with one > `boundary`.
    """

    boundary: int
    after: int
    before: int

    @property
    def n_ambiguous(self) -> int:
        """Number of patterns in the zone."""
        return self.before - self.after - 1


def zones(labels: ArrayLike, n_classes: int) -> list[AmbiguityZone]:
    """Return the ambiguity zone of each of the ``n_classes - 1`` boundaries.

    Parameters
    ----------
    labels
        (n,) integers, 0 <= label < `n_classes`, in the order of the series.

    Raises
    ------
    ModelError
        A label is not one of the classes.
    """
    y = _checked(labels, n_classes)
    found = []
    for k in range(n_classes - 1):
        later = np.flatnonzero(y > k)
        earlier = np.flatnonzero(y <= k)
        after = int(later[0]) - 1 if later.size else len(y) - 1
        before = int(earlier[-1]) + 1 if earlier.size else 0
        found.append(AmbiguityZone(boundary=k, after=after, before=before))
    return found


def classification_confidence(labels: ArrayLike, n_classes: int) -> float:
    """Return ``1 - N_f / N_t``: N_f patterns lie in any zone, of N_t; 0 when one class was seen.

    Parameters
    ----------
    labels
        (n,) integers, 0 <= label < `n_classes`, in the order of the series.
    """
    y = _checked(labels, n_classes)
    if len(np.unique(y)) < 2:
        return 0.0
    ambiguous = np.zeros(len(y), bool)
    for zone in zones(y, n_classes):
        ambiguous[zone.after + 1 : zone.before] = True
    return float(1 - ambiguous.sum() / len(y))


def _checked(labels: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    y = np.asarray(labels)
    if y.ndim != 1 or (y.size and y.dtype.kind not in "iu"):
        raise ModelError(f"labels: (n,) integers wanted, not {y.dtype} of shape {y.shape}")
    if y.size and not (y.min() >= 0 and y.max() < n_classes):
        raise ModelError(f"labels: {y.min()} to {y.max()} where classes are 0 to {n_classes - 1}")
    return y.astype(np.int64)
