"""What a stage is, and how a batch with a bad item in it is taken apart.

A stage says in ``start`` what goes out for what comes in and refuses what it cannot take;
``process`` is pure: no socket, no clock, no logging. It raises on a batch that holds a bad item.
"""

from collections.abc import Callable
from typing import Protocol

from phasewatch.pipeline.batch import Batch, Failure, concatenate
from phasewatch.pipeline.documents import RunStart


class Stage(Protocol):
    """One step of the chain."""

    name: str

    def start(self, run: RunStart) -> RunStart: ...
    def process(self, batch: Batch) -> Batch: ...


def isolate(
    name: str, process: Callable[[Batch], Batch], batch: Batch
) -> tuple[Batch | None, list[Failure]]:
    """Process `batch`; where that raises, halve it until the bad items stand alone.

    Returns
    -------
    tuple
        What could be processed, in order (None if nothing), and one `Failure` per bad item.
        A stage computes each item on its own, so the good items come out as they would have.
    """
    try:
        return process(batch), []
    except Exception as error:  # whatever one item did, the others must come through
        if len(batch) == 1:
            text = " ".join(f"{error}".split()) or type(error).__name__
            return None, [Failure(int(batch.seq[0]), int(batch.ids[0]), name, text)]
    middle = len(batch) // 2
    done, failures = [], []
    for part in (batch.select(slice(None, middle)), batch.select(slice(middle, None))):
        good, bad = isolate(name, process, part)
        failures += bad
        if good is not None:
            done.append(good)
    return (concatenate(done) if done else None), failures
