"""What a contest is about: a series with labels to learn from, a series to judge, and its truth.

A simulated pair is two runs of one experiment under different conditions; it has two classes,
before and after half the sample has transformed, and its patterns are cleaned as a chain does by
default. A real series is learnt from and judged on at once, its patterns as they are in the file.
"""

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.contest import pick
from phasewatch.calibration.baseline import estimate
from phasewatch.calibration.normalise import normalise
from phasewatch.models import ModelError
from phasewatch.models.labels import Labels, read_labels
from phasewatch.models.series import Series, read_series
from phasewatch.pipeline.config import ReduceConfig
from phasewatch.pipeline.errors import PipelineError

Int64 = NDArray[np.int64]

TWO = ("before", "after")
HALF = 0.5  # of the sample transformed: the boundary of two classes


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """One contest.

    Attributes
    ----------
    name
        What the tables call it.
    train, labels
        The series to learn from, and its labels.
    test
        The series to judge on.
    truth_index, truth
        (t,) the patterns of `test` whose class is known, rising, and that class.
    same
        Whether `test` is `train`, so that labelled patterns are not judged.
    """

    name: str
    train: Series
    labels: Labels
    test: Series
    truth_index: Int64
    truth: Int64
    same: bool

    @property
    def seen(self) -> Int64:
        """The patterns of `test` that were trained on."""
        return self.labels.index if self.same else np.empty(0, np.int64)

    def describe(self) -> dict[str, Any]:
        """Return what the report says of it; equal for equal data alone."""
        return {
            "train": self.train.source,
            "train_digest": self.train.digest,
            "test": self.test.source,
            "test_digest": self.test.digest,
            "truth_digest": hashlib.sha256(
                self.truth_index.tobytes() + self.truth.tobytes()
            ).hexdigest(),
            "classes": list(self.labels.classes),
            "labelled": dict(
                zip(self.labels.index.tolist(), self.labels.label.tolist(), strict=True)
            ),
            "baseline": self.train.baseline,
            "normalise": self.train.normalise,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "order_name": self.test.order_name,
        }


def simulated(name: str, train: Path, test: Path) -> Data:
    """Read the two folders of a simulated pair.

    Raises
    ------
    PipelineError, ModelError
        A file is missing, a phase does not occur, or the two are not on one axis.
    """
    learnt, fraction = _cleaned(train)
    judged, true = _cleaned(test)
    if learnt.digest == judged.digest:
        raise PipelineError(f"{test}: is the run that is learnt from: give another seed or folder")
    if not np.array_equal(learnt.axis, judged.axis):
        raise PipelineError(f"{test}: its axis is not that of {train}: not the same experiment")
    index = pick.every_tenth(fraction)
    label = (fraction[index] >= HALF).astype(np.int64)
    if len(np.unique(label)) < 2:
        raise PipelineError(f"{train / 'truth.csv'}: no pattern clear of the transition on a side")
    truth = (true >= HALF).astype(np.int64)
    labels = Labels(index, label, TWO)
    return Data(name, learnt, labels, judged, np.arange(len(judged)), truth, same=False)


def real(path: Path, labels: Path | None = None) -> Data:
    """Read a real series, with its key ``labels_derived`` or a table of labels as the truth.

    Raises
    ------
    ModelError
        There are no labels, or they do not fit.
    """
    series = read_series(path)
    if labels is not None:
        known = read_labels(labels, series_index=series.index)
    else:
        known = _derived(path, len(series))
    if (np.diff(known.label) < 0).any():
        raise ModelError(f"{labels or path}: labels: the classes do not follow each other in order")
    at = pick.evenly(known.label)
    given = Labels(known.index[at], known.label[at], known.classes)
    return Data(path.stem, series, given, series, known.index, known.label, same=True)


def _derived(path: Path, n: int) -> Labels:
    hint = "give --labels LABELS.csv"
    if path.suffix != ".npz":
        raise ModelError(f"{path}: no labels in it; {hint}")
    with np.load(path, allow_pickle=False) as archive:
        if "labels_derived" not in archive.files:
            raise ModelError(f"{path}: key 'labels_derived' is missing; {hint}")
        label = archive["labels_derived"]
    if label.shape != (n,) or label.dtype.kind not in "iu":
        raise ModelError(f"{path}: labels_derived: ({n},) integers wanted, not {label.dtype}")
    present, label = np.unique(label, return_inverse=True)
    if len(present) < 2:
        raise ModelError(f"{path}: labels_derived: one class only; at least two are needed")
    return Labels(np.arange(n), label.astype(np.int64), tuple(str(c) for c in present))


def _cleaned(folder: Path) -> tuple[Series, NDArray[np.float64]]:
    """Return the patterns of a simulated run as the chain cleans them, and its fraction (n,)."""
    series = read_series(folder / "series.npz")
    fraction = _fraction(folder / "truth.csv")
    if len(fraction) != len(series):
        raise PipelineError(f"{folder}: truth.csv has {len(fraction)} rows, not {len(series)}")
    reduce = ReduceConfig()
    settings = reduce.baseline.settings()
    clean = series.intensity - estimate(series.intensity, **settings)
    whole = replace(
        series,
        intensity=normalise(clean, reduce.normalise),
        baseline=settings,
        normalise=reduce.normalise,
        source=folder.name,
    )
    return whole, fraction


def _fraction(path: Path) -> NDArray[np.float64]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return np.array([float(row["fraction"]) for row in csv.DictReader(file)])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise PipelineError(f"{path}: a column fraction of numbers is expected: {error}") from None
