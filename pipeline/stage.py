"""What a stage is, and how a batch with a bad item in it is taken apart.

A stage says in ``start`` what goes out for what comes in and refuses what it cannot take;
``process`` is pure: no socket, no clock, no logging. It raises on a batch that holds a bad item,
and computes each item on its own, so that the result of one does not depend on its neighbours; the
exceptions (the tracker, a model with temporal context) remember earlier items, and only those.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from phasewatch.pipeline.batch import Batch, Failure, concatenate
from phasewatch.pipeline.documents import RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import ERROR_LENGTH


class Stage(Protocol):
    """One step of the chain."""

    name: str

    def start(self, run: RunStart) -> RunStart:
        """Check what comes in; say what goes out."""

    def process(self, batch: Batch) -> Batch:
        """Compute."""


@runtime_checkable
class Remembering(Protocol):
    """A stage to which the items of a run come in order, and which remembers some of them."""

    def forget(self) -> None:
        """Go on as if none had come."""


class Conform:
    """Checks that batches are what the start of their run announced."""

    def __init__(self, run: RunStart) -> None:
        self._run = run
        self._timed: bool | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return `batch`, or raise what `conform` raises; all have t_acq, or none has."""
        timed = batch.t_acq is not None
        if self._timed not in (None, timed):
            raise PipelineError(f"t_acq {'came' if timed else 'is missing'} in the middle of a run")
        conform(self._run, batch)
        self._timed = timed
        return batch


def conform(run: RunStart, batch: Batch) -> Batch:
    """Return `batch` if its arrays are what `run` announced.

    Raises
    ------
    PipelineError
        An array is missing, was not announced, or has another shape or dtype.
    """
    for name in run.items.keys() ^ batch.arrays.keys():
        state = "is missing" if name in run.items else "was not announced in the start of the run"
        raise PipelineError(f"{name} {state}")
    for name, spec in run.items.items():
        array = batch.arrays[name]
        if array.shape[1:] != spec.shape or array.dtype != spec.dtype:
            raise PipelineError(
                f"{name} is {array.dtype} {array.shape[1:]}; the run began with "
                f"{spec.dtype.lstrip('<|')} {spec.shape}"
            )
    return batch


def isolate(
    name: str, process: Callable[[Batch], Batch], batch: Batch
) -> tuple[Batch | None, list[Failure]]:
    """Process `batch`; where that raises, halve it until the bad items stand alone.

    Returns
    -------
    tuple
        What could be processed, in order (None if nothing), and one `Failure` per bad item.
    """
    if len(batch) == 0:
        return None, []
    try:
        return process(batch), []
    except Exception as error:  # whatever one item did, the others must come through
        if len(batch) == 1:
            text = one_line(error)[:ERROR_LENGTH]
            return None, [Failure(int(batch.seq[0]), int(batch.ids[0]), name, text)]
    middle = len(batch) // 2
    done, failures = [], []
    for part in (batch.select(slice(None, middle)), batch.select(slice(middle, None))):
        good, bad = isolate(name, process, part)
        failures += bad
        if good is not None:
            done.append(good)
    return (concatenate(done) if done else None), failures
