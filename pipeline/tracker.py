"""The tracker: a pure fold over predictions, in order of ``seq``.

A forward filter over a hidden Markov chain of the ordered classes. With the transition matrix T
(to the next class with probability `advance`, back one with `reversal`, else stay), the
probabilities p_c of the classifier and a uniform prior,

    posterior_c  ~  (p_c + floor) * sum_b posterior_b T_bc

(Rabiner, Proc. IEEE 77, 257 (1989), eqs. 19-20, normalised at each step.) `floor` is how much a
single prediction may be wrong: with 0.02 no prediction outweighs the chain by more than about 50 to
1, so that one stray pattern does not reverse a transition and two do not go unseen.

The phase changes when the posterior of another one reaches `sure`: at a noisy boundary the best of
two near-equals would change to and fro. And on a pattern only that prefers it itself, by `odds`: of
patterns that say nothing the prior, which expects the next phase, would make a transition (0.8
after 16 patterns with 0.52 each, from an LSTM on a series that has none).

A pattern whose novelty is above a limit is no evidence: the chain only moves on, the report says
unknown, and it has no label in the ambiguity zones.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.ambiguity import Ambiguity
from phasewatch.pipeline.documents import Event

UNKNOWN = -1
Kind = Literal["onset", "completed", "reversed", "unknown"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the tracker believes of the experiment; probabilities are per item."""

    n_classes: int
    advance: float = 0.05
    reversal: float = 0.01
    floor: float = 0.02
    novelty: float = 1.5
    sure: float = 0.8
    odds: float = 1.5


@lru_cache(maxsize=8)
def transition(rules: Rules) -> NDArray[np.float64]:
    """Return T (n_classes, n_classes), rows summing to 1."""
    n = rules.n_classes
    matrix = np.diag(np.full(n - 1, rules.advance), 1) + np.diag(np.full(n - 1, rules.reversal), -1)
    np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
    return matrix


@lru_cache(maxsize=8)
def columns(rules: Rules) -> tuple[tuple[float, ...], ...]:
    """Return the columns of T, the ways into each class."""
    return tuple(tuple(column) for column in transition(rules).T.tolist())


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the classifier said of one item."""

    seq: int
    id: int
    t_acq: int | None
    probability: NDArray[np.float32]
    novelty: float


@dataclass(frozen=True, slots=True)
class State:
    """All that the tracker remembers; small, and the same for the same predictions."""

    ambiguity: Ambiguity
    posterior: tuple[float, ...]
    phase: int | None = None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What the tracker says of one item: `phase` is a class index or `UNKNOWN`."""

    posterior: tuple[float, ...]
    phase: int
    events: tuple[Event, ...]


def initial(rules: Rules) -> State:
    """Return the state before the first prediction: every class equally likely."""
    n = rules.n_classes
    return State(ambiguity=Ambiguity.of(n), posterior=(1.0 / n,) * n)


def step(rules: Rules, state: State, prediction: Prediction) -> tuple[State, Report]:
    """Take one prediction in; return the new state and what to say of the item."""
    unknown = prediction.novelty > rules.novelty
    # In plain numbers: for a few classes arrays take three times as long.
    believed: list[float] = prediction.probability.tolist()
    posterior = [
        sum(p * t for p, t in zip(state.posterior, column, strict=True))
        * (1.0 if unknown else probability + rules.floor)
        for column, probability in zip(columns(rules), believed, strict=True)
    ]
    total = sum(posterior)
    posterior = [p / total for p in posterior]
    best = posterior.index(max(posterior))
    phase = state.phase
    if not unknown and (phase is None or _sure(rules, phase, best, posterior, believed)):
        phase = best
    label = believed.index(max(believed))
    ambiguity = state.ambiguity if unknown else state.ambiguity.add(label, prediction.seq)
    kinds = _kinds(state, phase, unknown, rules.n_classes)
    state = State(ambiguity, tuple(posterior), phase, unknown)
    events = tuple(
        Event(
            kind=kind,
            seq=prediction.seq,
            id=prediction.id,
            t_acq=prediction.t_acq,
            phase=UNKNOWN if kind == "unknown" or phase is None else phase,
            posterior=posterior[best],
        )
        for kind in kinds
    )
    said = UNKNOWN if unknown or phase is None else phase
    return state, Report(state.posterior, said, events)


def _sure(
    rules: Rules, phase: int, best: int, posterior: list[float], believed: list[float]
) -> bool:
    return posterior[best] >= rules.sure and believed[best] >= rules.odds * believed[phase]


def _kinds(state: State, phase: int | None, unknown: bool, n_classes: int) -> list[Kind]:
    if unknown:
        return [] if state.unknown else ["unknown"]
    if phase is None or state.phase is None or phase == state.phase:
        return []
    if phase < state.phase:
        return ["reversed"]
    if phase < n_classes - 1:
        return ["onset"]
    return ["onset", "completed"] if state.phase == 0 else ["completed"]
