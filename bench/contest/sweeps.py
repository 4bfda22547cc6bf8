"""The thesis's figures of confidence: 3.7 against explained variance, 4.6 and 5.9 against bins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phasewatch.bench.contest.jobs import NO_RECIPE, VARIANCE, Job
from phasewatch.models import names

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bins:
    """A figure of confidence against the number of bins, of `model`."""

    number: str
    model: str
    most: int


# As far as the thesis goes: 4.6 discusses 18 bins, 5.9 ends at 16.
BINS = (Bins("4.6", "binned-mlp", 20), Bins("5.9", "binned-fcnn", 16))


def jobs(data: str, recipes: Sequence[str], seeds: int) -> list[Job]:
    """Return what the figures of `data` need; for each seed all values."""
    found = []
    for seed in range(seeds):
        found.append(Job(data, VARIANCE, NO_RECIPE, seed))
        for figure in BINS:
            if figure.model in names():
                for recipe in recipes:
                    found += [
                        Job(data, figure.model, recipe, seed, {"bins": b})
                        for b in range(1, figure.most + 1)
                    ]
    return found


def draw(
    folder: Path,
    data: str,
    recipes: Sequence[str],
    seeds: int,
    record: Callable[[Job], Record | None],
) -> list[Path]:
    """Draw the figures of `data` from what `record` gives; return the pictures."""
    from phasewatch.bench.contest.pictures import draw_sweep

    drawn = []

    def confidence(job: Job) -> float:
        return (record(job) or {}).get("confidence", np.nan)

    swept = [record(Job(data, VARIANCE, NO_RECIPE, seed)) for seed in range(seeds)]
    good = [r for r in swept if r is not None and "error" not in r]
    if good:
        lines = {"pca-spectral": (np.array(good[0]["variance"]), _rows(good))}
        drawn.append(folder / f"figure-3.7-{data}.png")
        title = f"PCA and spectral clustering of {data}"
        draw_sweep(drawn[-1], lines, title=title, label="explained variance", whole=False)
    for figure in BINS:
        if figure.model not in names():
            continue
        bins = np.arange(1, figure.most + 1)
        lines = {
            recipe: (
                bins,
                np.array(
                    [
                        [
                            confidence(Job(data, figure.model, recipe, seed, {"bins": int(b)}))
                            for b in bins
                        ]
                        for seed in range(seeds)
                    ]
                ),
            )
            for recipe in recipes
        }
        drawn.append(folder / f"figure-{figure.number}-{data}.png")
        title = f"{figure.model} on {data}"
        draw_sweep(drawn[-1], lines, title=title, label="number of bins", whole=True)
    return drawn


def _rows(records: Sequence[Record]) -> Any:
    return np.array([record["confidence"] for record in records])
