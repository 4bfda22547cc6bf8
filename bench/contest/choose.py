"""What ``--data`` names: experiments, pairs of folders, real series."""

import shutil
from collections.abc import Callable
from pathlib import Path

from phasewatch.bench.contest import data
from phasewatch.bench.contest.data import Data
from phasewatch.bench.simulate import write_run
from phasewatch.bench.twin.catalogue import EXPERIMENTS
from phasewatch.bench.twin.run import open_run
from phasewatch.pipeline.errors import PipelineError

TRAIN_SEED, TEST_SEED = 0, 1

Progress = Callable[[str, int, int], None]


def open_data(spec: str, folder: Path, *, labels: Path | None, progress: Progress) -> Data:
    """Open what `spec` names.

    Parameters
    ----------
    spec
        ``EXPERIMENT`` (trained on run 0, judged on run 1), ``EXPERIMENT:TRAIN:TEST`` with other
        seeds, ``FOLDER:FOLDER`` of two simulated runs with patterns, or the file of a real series.
    folder
        Where runs are simulated to; one that is there already is not simulated again.
    labels
        Table of labels, for a real series.
    progress
        Called with what is simulated, the frames done, and of how many.

    Raises
    ------
    PipelineError, ModelError
        It names nothing of these, or a file in it is not as it should be.
    """
    first, *more = spec.split(":")
    if first in EXPERIMENTS:
        _no_labels(spec, labels)
        train, test = _seeds(spec, more)
        runs = [_simulated(first, seed, folder, progress) for seed in (train, test)]
        return data.simulated(f"{first}-{train}-{test}" if more else first, *runs)
    if len(more) == 1:
        _no_labels(spec, labels)
        pair = Path(first), Path(more[0])
        return data.simulated(f"{pair[0].name}-{pair[1].name}", *pair)
    if more or not Path(first).exists():
        raise PipelineError(
            f"--data {spec}: not a file, not FOLDER:FOLDER, and not one of the experiments "
            f"{', '.join(EXPERIMENTS)}"
        )
    return data.real(Path(first), labels)


def _seeds(spec: str, given: list[str]) -> tuple[int, int]:
    if not given:
        return TRAIN_SEED, TEST_SEED
    if len(given) != 2 or not all(seed.isdecimal() for seed in given) or given[0] == given[1]:
        raise PipelineError(f"--data {spec}: EXPERIMENT:TRAIN:TEST wants two different seeds")
    return int(given[0]), int(given[1])


def _no_labels(spec: str, labels: Path | None) -> None:
    if labels is not None:
        raise PipelineError(f"--labels: {spec} is simulated, its labels come from its truth")


def _simulated(name: str, seed: int, folder: Path, progress: Progress) -> Path:
    """Return the folder of run `seed` of the experiment `name`, simulated where it is missing."""
    out = folder / f"{name}-{seed}"
    if out.is_dir():
        return out
    run = open_run(name, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}-{seed}.partial"  # what was stopped half-way is begun again
    if partial.exists():
        shutil.rmtree(partial)
    total = run.conditions.frames
    write_run(
        run, partial, kind="patterns", progress=lambda n: progress(f"{name} {seed}", n, total)
    )
    partial.rename(out)
    return out
