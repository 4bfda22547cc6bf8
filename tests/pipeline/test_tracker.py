"""The tracker: zones as in the thesis, a filter that a stray pattern does not fool, events."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.models.confidence import classification_confidence, zones
from phasewatch.pipeline.ambiguity import Ambiguity
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.tracker import Rules, transition

LABELS = st.integers(2, 4).flatmap(
    lambda c: st.tuples(st.just(c), st.lists(st.integers(0, c - 1), min_size=1, max_size=40))
)


@given(LABELS)
def test_one_label_at_a_time_gives_what_the_whole_series_gives(
    case: tuple[int, list[int]],
) -> None:
    n_classes, labels = case
    ambiguity = Ambiguity.of(n_classes)
    for seq, label in enumerate(labels):
        ambiguity = ambiguity.add(label, seq)
    whole = zones(np.array(labels), n_classes)
    assert [(z.boundary, z.after, z.before) for z in ambiguity.zones()] == [
        (z.boundary, z.after, z.before) for z in whole
    ]
    expected = classification_confidence(np.array(labels), n_classes)
    assert ambiguity.confidence() == pytest.approx(expected)


def test_zones_are_told_in_seq_where_items_have_no_label() -> None:
    ambiguity = Ambiguity.of(2)
    for seq, label in zip([0, 1, 5, 6, 9], [0, 0, 1, 0, 1], strict=True):
        ambiguity = ambiguity.add(label, seq)
    (zone,) = ambiguity.zones()
    assert (zone.after, zone.before, zone.n, zone.passed) == (1, 9, 2, True)
    assert ambiguity.confidence() == pytest.approx(1 - 2 / 5)


@given(st.integers(2, 6), st.floats(0.001, 0.4), st.floats(0, 0.4))
def test_the_chain_is_a_probability(n: int, advance: float, reversal: float) -> None:
    matrix = transition(Rules(n_classes=n, advance=advance, reversal=reversal))
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)


def run(n_classes: int = 3) -> RunStart:
    return RunStart(
        run_id="r",
        source="test",
        items={"probability": ItemSpec.of((n_classes,), "f4")},
        classes=("before", "during", "after")[:n_classes],
    )


def predictions(labels: list[int], n_classes: int, novelty: list[float] | None = None) -> Batch:
    probability = np.full((len(labels), n_classes), 0.02 / (n_classes - 1), np.float32)
    probability[np.arange(len(labels)), labels] = 0.98
    seq = np.arange(len(labels))
    new = np.array(novelty or [0.0] * len(labels), np.float32)
    return Batch(seq, seq + 100, seq * 10, {"probability": probability, "novelty": new})


def tracked(
    labels: list[int], n_classes: int = 3, novelty: list[float] | None = None, **rules: float
) -> tuple[Track, Batch]:
    track = Track(**rules)
    track.start(run(n_classes))
    return track, track.process(predictions(labels, n_classes, novelty))


def test_a_ramp_has_an_onset_and_a_completion() -> None:
    track, out = tracked([0] * 10 + [1] * 5 + [2] * 10)
    events = track.take_events()
    assert [(e.kind, e.phase) for e in events] == [("onset", 1), ("completed", 2)]
    assert 10 <= events[0].seq <= 11
    assert 15 <= events[1].seq <= 16
    assert events[0].id == events[0].seq + 100
    assert events[0].t_acq == events[0].seq * 10
    assert out.arrays["phase"][-1] == 2
    assert track.confidence == 1.0
    assert [(z.after, z.before) for z in track.zones] == [(9, 10), (14, 15)]


def test_without_a_class_between_onset_and_completion_come_together() -> None:
    track, _ = tracked([0] * 10 + [1] * 10, n_classes=2)
    assert [e.kind for e in track.take_events()] == ["onset", "completed"]


def test_a_stray_pattern_does_not_reverse_a_transition() -> None:
    track, out = tracked([0] * 10 + [2] * 10 + [0] + [2] * 10)
    assert "reversed" not in [e.kind for e in track.take_events()]
    assert out.arrays["phase"][20] == 2


def test_decompression_is_a_reversal() -> None:
    track, _ = tracked([0] * 5 + [2] * 10 + [0] * 5, reversal=0.05)
    assert [e.kind for e in track.take_events()][-1] == "reversed"


def test_a_pattern_outside_the_training_range_is_unknown_and_no_evidence() -> None:
    novelty = [0.5] * 5 + [9.0] * 3 + [0.5] * 2
    track, out = tracked([0] * 5 + [2] * 3 + [0] * 2, novelty=novelty)
    assert out.arrays["phase"].tolist() == [0] * 5 + [-1] * 3 + [0] * 2
    assert [(e.kind, e.seq) for e in track.take_events()] == [("unknown", 5)]
    assert track.state.ambiguity.n == 7
    assert [z.passed for z in track.zones] == [False, False]


def test_a_phase_between_two_that_are_as_likely_does_not_chatter() -> None:
    rng = np.random.default_rng(0)
    labels = [0] * 20 + rng.integers(0, 2, 40).tolist() + [1] * 20
    batch = predictions(labels, 2)
    batch.arrays["probability"][20:60] = 0.5 + (batch.arrays["probability"][20:60] - 0.5) / 10
    track = Track(reversal=0.05)
    track.start(run(2))
    track.process(batch)
    assert len(track.take_events()) == 2


def test_patterns_that_say_nothing_make_no_transition() -> None:
    """The prior alone, which expects the next phase, comes to 0.83."""
    batch = predictions([0] * 5 + [1] * 200, 2)
    batch.arrays["probability"][5:] = (0.48, 0.52)
    track = Track()
    track.start(run(2))
    posterior = track.process(batch).arrays["posterior"]
    assert posterior[-1, 1] > 0.8
    assert track.take_events() == []
    track.process(predictions([1], 2))
    assert [e.kind for e in track.take_events()] == ["onset", "completed"]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.data())
def test_it_is_a_fold_however_the_stream_is_cut(labels: list[int], data: st.DataObject) -> None:
    whole, expected = tracked(labels)
    batch, track, parts = predictions(labels, 3), Track(), []
    track.start(run())
    cuts = sorted(data.draw(st.sets(st.integers(0, len(labels)))) | {0, len(labels)})
    for first, last in pairwise(cuts):
        parts.append(track.process(batch.select(slice(first, last))))
    posterior = np.concatenate([p.arrays["posterior"] for p in parts])
    assert posterior.tobytes() == expected.arrays["posterior"].tobytes()
    assert track.state == whole.state
    assert track.take_events() == whole.take_events()


def test_tracking_needs_classes() -> None:
    with pytest.raises(PipelineError, match="classes"):
        Track().start(run().evolve(classes=()))
