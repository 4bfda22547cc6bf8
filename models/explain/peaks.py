"""Whether the importance falls on Bragg peaks.

A simulated run says in ``peaks.npz`` where its peaks truly are: ``axis`` (N,), and for each part of
the sample (``low``, ``high``, perhaps ``other``) bits (n, ceil(N / 8)), packed along the axis by
`numpy.packbits`, set where a peak of that part lies in that pattern. With a_ij the absolute
importance of point j of pattern i and M_ij = 1 in the regions,

    fraction = sum a_ij M_ij / sum a_ij,    chance = mean of M_ij,    ratio = fraction / chance

The absence of a peak tells a class as well as its presence, so two regions are judged: ``present``,
the peaks that are in pattern i, and ``run``, where any peak is in any pattern of the run.
"""

import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.card import TOLERANCE
from phasewatch.models.errors import ModelError

Bools = NDArray[np.bool_]

FILE = "peaks.npz"
PARTS = ("low", "high", "other")


@dataclass(frozen=True, slots=True)
class Share:
    """What part of the importance lies in regions, beside their share of the axis.

    Attributes
    ----------
    fraction
        Of the absolute importance; None where there is none at all.
    chance
        Of the axis.
    """

    fraction: float | None
    chance: float

    @property
    def ratio(self) -> float | None:
        """How many times more than by chance."""
        return self.fraction / self.chance if self.fraction is not None and self.chance else None

    def figures(self) -> dict[str, Any]:
        """Return the figures for a report."""
        return asdict(self) | {"ratio": self.ratio}


def read_peaks(path: str | Path, *, axis: NDArray[np.float64], index: NDArray[np.int64]) -> Bools:
    """Read the regions (n, N) of a series from ``peaks.npz`` of its run.

    Parameters
    ----------
    axis
        (N,) of the series.
    index
        (n,) position in the run of each pattern (`Series.index`).

    Raises
    ------
    ModelError
        It cannot be read, or belongs to another axis or a shorter run; names the file.
    """
    path = Path(path)
    try:
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: " + ("not an .npz archive" if path.exists() else "no file"))
        with np.load(path, allow_pickle=False) as archive:
            parts = [archive[part] for part in PARTS if part in archive.files]
            own = np.asarray(archive["axis"], np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not parts:
        raise ModelError(f"{path}: keys {', '.join(PARTS)} are missing")
    packed = (len(parts[0]) if parts[0].ndim else 0, -(-len(axis) // 8))
    if own.shape != axis.shape or np.abs(own - axis).max() > TOLERANCE * np.diff(axis).mean():
        raise ModelError(f"{path}: axis: not that of the series")
    if any(part.dtype != np.uint8 or part.shape != packed for part in parts):
        raise ModelError(f"{path}: {packed} bytes of packed bits are expected for each part")
    if index[-1] >= packed[0]:
        raise ModelError(f"{path}: {packed[0]} patterns, but the series has number {index[-1]}")
    bits = np.unpackbits(np.bitwise_or.reduce(parts), axis=1, count=len(axis))
    return np.asarray(bits[index], np.bool_)


def share(importance: NDArray[np.float32], regions: Bools) -> Share:
    """Return how much of the absolute `importance` (n, N) lies in `regions` (n, N)."""
    size = np.abs(importance, dtype=np.float64)
    total = float(size.sum())
    fraction = float(size[regions].sum()) / total if total else None
    return Share(fraction, float(regions.mean()))


def fractions(importance: NDArray[np.float32], regions: Bools) -> NDArray[np.float64]:
    """Return the fraction (n,) per pattern; NaN where a pattern has no importance."""
    size = np.abs(importance, dtype=np.float64)
    total = size.sum(axis=1)
    inside = np.where(regions, size, 0).sum(axis=1)
    return np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)


def judge(
    importance: NDArray[np.float32], regions: Bools, label: NDArray[np.int64]
) -> dict[str, dict[str | int, Share]]:
    """Return the shares for the regions ``present`` and ``run``: overall, and per class k.

    Parameters
    ----------
    importance
        (n_classes, n, N); that of a pattern's own label counts.
    label
        (n,).
    """
    own = importance[label, np.arange(len(label))]
    anywhere = np.broadcast_to(regions.any(axis=0), regions.shape)
    found: dict[str, dict[str | int, Share]] = {}
    for name, where in (("present", regions), ("run", anywhere)):
        found[name] = {"overall": share(own, where)}
        for k in np.unique(label).tolist():
            found[name][k] = share(own[label == k], where[label == k])
    return found
