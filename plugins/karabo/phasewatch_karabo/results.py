"""From the documents that the chain publishes to what the output channel carries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.bodies import BatchBody, StartBody, StopBody
from phasewatch.pipeline.documents import RunStart, RunStop
from phasewatch.pipeline.messages import Message, MessageError
from phasewatch.plugins.sources.trust import announced

EMPTY: NDArray[np.float32] = np.empty(0, np.float32)
ITEMS = {  # by name: axes and kind of number
    "intensity": (1, "f"),
    "probability": (1, "f"),
    "novelty": (0, "f"),
    "label": (0, "i"),
    "phase": (0, "i"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the chain says of one frame; -1 and empty where it does not say.

    `pattern` (n_bins,), `probability` (n_classes,), both float32; `t_acq` in ns UTC.
    """

    seq: int
    id: int
    t_acq: int | None
    pattern: NDArray[np.float32]
    probability: NDArray[np.float32]
    novelty: float = 0.0
    label: int = -1
    phase: int = -1


class Results:
    """Follows the runs that the chain publishes.

    Attributes
    ----------
    run
        The run whose results come; None before the first ``start``.
    missed
        How many results of the runs that have ended did not come.
    refused
        How many messages were not good; `last_error`: why the last one was not.
    """

    def __init__(self) -> None:
        self.run: RunStart | None = None
        self.refused = self.missed = self._came = 0
        self.last_error = ""

    def take(self, message: Message) -> Iterator[RunStart | Result | RunStop]:
        """Yield what `message` says: a run that begins, results, the end of the run."""
        body = message.body
        try:
            if isinstance(body, StartBody):
                if self.run is None or body.run.run_id != self.run.run_id:
                    self.run, self._came = _checked(message.run()), 0
                    yield self.run
            elif self.run is None:
                return  # we came late; the start is repeated
            elif isinstance(body, BatchBody) and body.run_id == self.run.run_id:
                for result in _items(message, self.run):
                    self._came += 1
                    yield result
            elif isinstance(body, StopBody) and body.stop.run_id == self.run.run_id:
                self.run = None
                self.missed += max(0, body.stop.loss.classified - self._came)
                yield body.stop
        except MessageError as error:
            self.refused += 1
            self.last_error = str(error)


def _checked(run: RunStart) -> RunStart:
    items = {name: spec for name, spec in run.items.items() if name in ITEMS}
    for name, spec in items.items():
        axes, kind = ITEMS[name]
        if len(spec.shape) != axes or np.dtype(spec.dtype).kind != kind:
            raise MessageError(f"start of {run.run_id}: {name} is {spec.dtype} {spec.shape}")
    return run.evolve(items=items)


def _items(message: Message, run: RunStart) -> Iterator[Result]:
    batch = announced(message.batch(), run)
    for i in range(len(batch)):
        said: dict[str, Any] = {k: a[i] for k, a in batch.arrays.items()}
        yield Result(
            seq=int(batch.seq[i]),
            id=int(batch.ids[i]),
            t_acq=None if batch.t_acq is None else int(batch.t_acq[i]),
            pattern=said.get("intensity", EMPTY).astype(np.float32, copy=False),
            probability=said.get("probability", EMPTY).astype(np.float32, copy=False),
            novelty=float(said.get("novelty", 0.0)),
            label=int(said.get("label", -1)),
            phase=int(said.get("phase", -1)),
        )
