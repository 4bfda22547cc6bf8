"""Which trainings a comparison consists of."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from phasewatch.models import names
from phasewatch.models.recipes import NAMES as RECIPES
from phasewatch.pipeline.errors import PipelineError

CLASSIFIERS = ("nearest-centroid", "logistic-regression", "gradient-boosting")
CHANGE_POINTS = ("change-points-l2", "change-points-rbf")
OUTSIDE = (*CLASSIFIERS, *CHANGE_POINTS)
SEEDED = ("gradient-boosting",)  # of those; the others give the same whatever the seed
NO_RECIPE = "-"
VARIANCE = "variance-sweep"  # one job for all of figure 3.7


@dataclass(frozen=True, slots=True)
class Job:
    """One training: of whom, on what, by which recipe and seed, and the model's own options."""

    data: str
    name: str
    recipe: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for jobs that are the same."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def slug(self) -> str:
        """A name for its files."""
        parts = [self.data, self.name, self.recipe.replace(NO_RECIPE, ""), str(self.seed)]
        parts += [f"{k}{v}" for k, v in sorted(self.options.items())]
        return "--".join(re.sub(r"[^\w.-]", "_", part) for part in parts if part)


def chosen(models: str) -> tuple[str, ...]:
    """Return the contenders that `models` names: ``all``, or some of them, ``a,b,c``.

    Raises
    ------
    PipelineError
        One is not known.
    """
    known = (*names(), *OUTSIDE)
    if models == "all":
        return known
    picked = tuple(dict.fromkeys(name.strip() for name in models.split(",")))
    for name in picked:
        if name not in known:
            raise PipelineError(f"--models {name!r}: not known; there are: {', '.join(known)}")
    return picked


def recipes(text: str) -> tuple[str, ...]:
    """Return the recipes that `text` names: one, or both, ``phasewatch,thesis``.

    Raises
    ------
    PipelineError
        One is not known.
    """
    picked = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in picked:
        if name not in RECIPES:
            raise PipelineError(f"--recipe {name!r}: not known; there are: {', '.join(RECIPES)}")
    return picked


def table_jobs(
    data: str, contenders: Iterable[str], recipes: Sequence[str], seeds: int
) -> list[Job]:
    """Return the jobs of the table of `data`; all contenders once before the next seed."""
    jobs = []
    for seed in range(seeds):
        for name in contenders:
            if name not in OUTSIDE:
                jobs += [Job(data, name, recipe, seed) for recipe in recipes]
            elif name in SEEDED or seed == 0:
                jobs.append(Job(data, name, NO_RECIPE, seed))
    return jobs
