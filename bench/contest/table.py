"""The table of a comparison: mean and standard deviation over seeds, per contender and recipe."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phasewatch.bench.contest.jobs import OUTSIDE

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: its heading in tables, its field in a record, and how it is written."""

    heading: str
    field: str
    factor: float = 1.0
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A contender by one recipe: per field (mean, sd) arrays over seeds, or None."""

    data: str
    name: str
    recipe: str
    seeds: int
    failed: int
    values: dict[str, tuple[list[float], list[float | None]] | None]


def columns(order_name: str) -> tuple[Column, ...]:
    """Return the columns; `order_name` such as ``pressure (GPa)`` names the unit of the error."""
    unit = re.search(r"\((.+)\)", order_name)
    return (
        Column("parameters", "n_parameters"),
        Column("training s", "training_s", digits=1),
        Column("CPU s", "training_cpu_s", digits=1),
        Column("peak MiB", "peak_memory_mib"),
        Column("epochs", "epochs"),
        Column("confidence %", "confidence", 100, 2),
        Column("boundary", "boundary", digits=1),
        Column("error frames", "error_frames", digits=1),
        Column(f"error {unit[1] if unit else order_name}", "error_order", digits=2),
        Column("accuracy %", "accuracy", 100, 2),
        Column("ECE", "ece", digits=3),
        Column("ms a pattern", "prediction_ms", digits=2),
    )


def rows(records: Iterable[Record], fields: Sequence[str]) -> list[Row]:
    """Gather records into rows, in the order in which contenders first appear, ours first.

    A record with ``error`` counts as failed. The deviation is that of a sample, None of one value.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["data"], record["name"], record["recipe"]), []).append(record)
    found = []
    for (data, name, recipe), group in groups.items():
        good = [record for record in group if "error" not in record]
        values = {field: _mean([record.get(field) for record in good]) for field in fields}
        found.append(Row(data, name, recipe, len(good), len(group) - len(good), values))
    return sorted(found, key=lambda row: (row.name in OUTSIDE, row.recipe))


def _mean(values: list[Any]) -> tuple[list[float], list[float | None]] | None:
    if not values or any(v is None for v in values):
        return None
    table = np.array([np.atleast_1d(v) for v in values], np.float64)
    spread = table.std(axis=0, ddof=1).tolist() if len(table) > 1 else [None] * table.shape[1]
    return table.mean(axis=0).tolist(), spread


def cell(row: Row, column: Column) -> str:
    """Write one figure: ``mean ± sd``; the mean alone where nothing spreads; ``-`` for none."""
    value = row.values[column.field]
    if value is None:
        return "-"
    parts = []
    for mean, spread in zip(*value, strict=True):
        text = f"{mean * column.factor:,.{column.digits}f}"
        if spread:
            text += f" ± {spread * column.factor:.{max(column.digits, 1)}f}"
        parts.append(text)
    return " / ".join(parts)


def cells(row: Row, shown: Sequence[Column]) -> list[str]:
    """Return the row of a table: name, recipe, seeds, then the figures."""
    seeds = f"{row.seeds}" + (f" ({row.failed} failed)" if row.failed else "")
    return [row.name, row.recipe, seeds, *(cell(row, column) for column in shown)]


def headings(shown: Sequence[Column]) -> list[str]:
    """Return the heading of every column of `cells`."""
    return ["", "recipe", "seeds", *(column.heading for column in shown)]


def markdown(found: Sequence[Row], shown: Sequence[Column]) -> str:
    """Return the table of one contest for a page of documentation."""
    lines = [headings(shown), ["---", "---", *["---:"] * (1 + len(shown))]]
    lines += [cells(row, shown) for row in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_csv(path: Path, found: Sequence[Row], shown: Sequence[Column]) -> None:
    """Write all contests: a mean and a deviation per figure; several boundaries with ``/``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [f"{c.field}_{what}" for c in shown for what in ("mean", "sd")]
        table.writerow(("data", "model", "recipe", "seeds", "failed", *names))
        for row in found:
            line: list[Any] = [row.data, row.name, row.recipe, row.seeds, row.failed]
            for column in shown:
                for part in row.values[column.field] or ([], []):
                    line.append("/".join("" if v is None else repr(v) for v in part))
            table.writerow(line)


def remarks(found: Sequence[Row], n: int, true: Sequence[float]) -> list[str]:
    """Return what is to be said below the table of one contest of `n` frames."""
    said = [f"true boundary: {' / '.join(f'{b:g}' for b in true)} of {n} frames"]
    for recipe in dict.fromkeys(row.recipe for row in found if row.name not in OUTSIDE):
        ours = [r for r in found if r.recipe == recipe and r.name not in OUTSIDE]
        means = [v[0] for r in ours if (v := r.values["boundary"]) is not None]
        if len(means) > 1:
            low, high = np.min(means, axis=0), np.max(means, axis=0)
            width = 100 * float((high - low).max()) / n
            said.append(
                f"{recipe}: boundaries of our {len(means)} models lie within "
                f"{width:.1f} % of the run's length"
            )
    return said
