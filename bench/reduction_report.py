"""The report of ``phasewatch bench reduction``: two tables, and JSON with the raw times."""

import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from phasewatch.bench import machine, reduction, scaling

ROWS = "what|of|bins|cores|yardstick|its ms|our ms|ratio|one a call|x memory|deviation"
POINTS = "what|x|ms a call|ms each"


def run(json_file: Path | None) -> None:
    """Measure all, print it, and write `json_file` after each step if it is given."""
    console, machine_now = Console(), machine.describe()
    rows, points = list[reduction.Row](), list[scaling.Point]()

    def keep() -> None:
        if json_file is not None:
            report = {
                "scenario": "reduction",
                "machine": machine_now,
                "rows": [reduction.as_json(row) for row in rows],
                "points": [scaling.as_json(point) for point in points],
            }
            json_file.write_text(json.dumps(report) + "\n", encoding="utf-8")

    core_counts = sorted({1, len(os.sched_getaffinity(0))})
    with console.status("") as status:
        for row in reduction.rows(core_counts, status.update):
            rows.append(row)
            keep()
        for point in scaling.points(status.update):
            points.append(point)
            keep()
    console.print(_rows(sorted(rows, key=lambda row: row.cores)))
    console.print(_points(points))


def _rows(rows: list[reduction.Row]) -> Table:
    table = Table(*ROWS.split("|"))
    for row in rows:
        floor = f"{row.ours_ms / row.floor_ms:.1f}" if row.floor_ms else ""
        single = f"{row.yardstick_ms / row.single_ms:.1f}"
        times = (f"{row.yardstick_ms:.2f}", f"{row.ours_ms:.3f}", f"{row.ratio:.1f}", single)
        table.add_row(
            *(row.what, row.size, row.bins, str(row.cores), row.yardstick),
            *(*times, floor, f"{row.deviation:.0e}"),
        )
    return table


def _points(points: list[scaling.Point]) -> Table:
    table = Table(*POINTS.split("|"))
    for point in points:
        x = f"{point.x:.3g} {point.unit}"
        table.add_row(point.what, x, f"{point.ms:.3f}", f"{point.per:.3f}")
    return table
