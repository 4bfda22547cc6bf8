"""A table of labels: for a few patterns of a series, which class each shows.

A CSV file with the columns ``index`` (position in the series, from 0) and ``label`` (the name of a
class, or a number, which is then its name).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Some patterns of a series and their classes.

    Attributes
    ----------
    index
        (n,) int64, positions in the series, increasing.
    label
        (n,) int64, positions in `classes`.
    classes
        Their names in order.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    classes: tuple[str, ...]


def read_labels(
    path: str | Path, *, series_index: NDArray[np.int64], classes: Sequence[str] | None = None
) -> Labels:
    """Read a table of labels.

    Parameters
    ----------
    series_index
        (n,) the index that the table means, of each pattern of the series (`Series.index`).
    classes
        The classes in order. Without it they are those in the table, in the order in which they
        first appear along the series; there must then be two at least.

    Raises
    ------
    ModelError
        Names the file, and the line where one is at fault.
    """
    path = Path(path)
    position = {index: i for i, index in enumerate(series_index.tolist())}
    found: dict[int, tuple[str, int]] = {}
    for line, row in _rows(path):
        where = f"{path} line {line}"
        try:
            index = int(row["index"])
        except ValueError:
            raise ModelError(f"{where}: index {row['index']!r} is not a whole number") from None
        if not 0 <= index <= series_index[-1]:
            raise ModelError(
                f"{where}: index {index}: the series has {len(series_index)} patterns, "
                f"the last is {series_index[-1]}"
            )
        if index not in position:
            raise ModelError(f"{where}: index {index}: that item of the run gave no pattern")
        if index in found:
            raise ModelError(f"{where}: index {index} has a label in line {found[index][1]}")
        if not row["label"]:
            raise ModelError(f"{where}: the label is empty")
        if classes is not None and row["label"] not in classes:
            raise ModelError(f"{where}: label {row['label']!r} is not one of {', '.join(classes)}")
        found[index] = (row["label"], line)
    if not found:
        raise ModelError(f"{path}: no label in it")
    order = sorted(found)
    names = [found[i][0] for i in order]
    if classes is None:
        classes = list(dict.fromkeys(names))
        if len(classes) < 2:
            raise ModelError(f"{path}: only one class, {names[0]!r}; at least two are needed")
    label = [list(classes).index(name) for name in names]
    where_labelled = np.array([position[i] for i in order], np.int64)
    return Labels(where_labelled, np.array(label, np.int64), tuple(classes))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of the table with their numbers, stripped; blank ones are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a text file in UTF-8") from None
    try:
        reader = csv.DictReader(text.splitlines(), strict=True, skipinitialspace=True)
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        for column in ("index", "label"):
            if column not in header:
                raise ModelError(
                    f"{path}: no column {column!r} in its first line, which has "
                    f"{', '.join(header)[:80] or 'nothing'}; index,label are wanted"
                )
        return [
            (reader.line_num, {k: (row[k] or "").strip() for k in ("index", "label")})
            for row in reader
        ]
    except csv.Error as error:
        raise ModelError(f"{path}: not a CSV table: {error}") from None
