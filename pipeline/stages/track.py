"""The last stage: the tracker, fed in order of ``seq``."""

import numpy as np

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import Event, ItemSpec, RunStart, Zone
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.tracker import UNKNOWN, Prediction, Rules, initial, step


class Track:
    """Adds ``posterior`` (n, n_classes) and ``phase`` (n,); the only stage with a state.

    A batch is folded in whole or, where an item of it raises, not at all.
    """

    name = "track"

    def __init__(
        self, *, advance: float = 0.05, reversal: float = 0.01, novelty: float = 1.5
    ) -> None:
        self._advance, self._reversal, self._novelty = advance, reversal, novelty
        self._events: list[Event] = []

    def start(self, run: RunStart) -> RunStart:
        """Begin a run: the state is new."""
        if len(run.classes) < 2:
            raise PipelineError("track: the run has no classes; [track] needs a [classifier]")
        self._rules = Rules(
            n_classes=len(run.classes),
            advance=self._advance,
            reversal=self._reversal,
            novelty=self._novelty,
        )
        self.state, self.resets, self._told = initial(self._rules), 0, 0
        return run.evolve(
            items={
                **run.items,
                "posterior": ItemSpec.of((len(run.classes),), np.float64),
                "phase": ItemSpec.of((), np.int32),
            }
        )

    def reset(self, n: int) -> bool:
        """Begin anew with the next item; an event ``reset`` says which it was.

        `n`: how many times this run was told to, so that to be told again changes nothing;
        `resets` is what of them was done. Returns whether there is something to do.
        """
        self._told = max(self._told, n)
        return self._told > self.resets

    def process(self, batch: Batch) -> Batch:
        """Fold the predictions of `batch` in."""
        if not np.isfinite(batch.arrays["probability"]).all():
            raise PipelineError("track: a probability is not finite")
        posterior = np.empty((len(batch), self._rules.n_classes))
        phase = np.empty(len(batch), np.int32)
        state, events = self.state, list[Event]()
        resets = self._told if len(batch) else self.resets
        if resets > self.resets:
            state, events = initial(self._rules), [_reset(batch, self._rules.n_classes)]
        for i in range(len(batch)):
            prediction = Prediction(
                seq=int(batch.seq[i]),
                id=int(batch.ids[i]),
                t_acq=None if batch.t_acq is None else int(batch.t_acq[i]),
                probability=batch.arrays["probability"][i],
                novelty=float(batch.arrays["novelty"][i]),
            )
            state, report = step(self._rules, state, prediction)
            posterior[i], phase[i] = report.posterior, report.phase
            events += report.events
        self.state, self.resets = state, max(resets, self.resets)
        self._events += events
        return batch.with_arrays(posterior=posterior, phase=phase)

    def take_events(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    @property
    def zones(self) -> tuple[Zone, ...]:
        """The ambiguity zone of each boundary."""
        return self.state.ambiguity.zones()

    @property
    def confidence(self) -> float:
        """The classification confidence, thesis eq. 3.1."""
        return self.state.ambiguity.confidence()


def _reset(batch: Batch, n_classes: int) -> Event:
    """Return what says that the tracker began anew with the first item of `batch`."""
    t_acq = None if batch.t_acq is None else int(batch.t_acq[0])
    seq, id_, even = int(batch.seq[0]), int(batch.ids[0]), 1.0 / n_classes
    return Event(kind="reset", seq=seq, id=id_, t_acq=t_acq, phase=UNKNOWN, posterior=even)
