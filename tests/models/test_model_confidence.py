import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.models import ModelError
from phasewatch.models.confidence import AmbiguityZone, classification_confidence, zones

series = st.integers(2, 5).flatmap(
    lambda c: st.tuples(st.lists(st.integers(0, c - 1), max_size=25), st.just(c))
)


def brute_zone(y: list[int], k: int) -> tuple[int, int]:
    n = len(y)
    after = max(i for i in range(-1, n) if all(v <= k for v in y[: i + 1]))
    before = min(i for i in range(n + 1) if all(v > k for v in y[i:]))
    return after, before


@given(series)
def test_zones_follow_the_definition(case):
    y, n_classes = case
    found = zones(np.array(y, np.int64), n_classes)
    assert [z.boundary for z in found] == list(range(n_classes - 1))
    for zone in found:
        assert (zone.after, zone.before) == brute_zone(y, zone.boundary)
        assert zone.n_ambiguous == zone.before - zone.after - 1 >= 0


@given(series)
def test_confidence_follows_the_definition(case):
    y, n_classes = case
    within = {
        i for k in range(n_classes - 1) for i in range(brute_zone(y, k)[0] + 1, brute_zone(y, k)[1])
    }
    expected = 0 if len(set(y)) < 2 else 1 - len(within) / len(y)
    assert classification_confidence(np.array(y, np.int64), n_classes) == pytest.approx(expected)


@given(series)
def test_ordered_series_are_certain(case):
    y, n_classes = case
    expected = 1.0 if len(set(y)) > 1 else 0.0
    assert classification_confidence(sorted(y), n_classes) == expected


@pytest.mark.parametrize(
    ("text", "zone", "confidence"),
    [
        ("0001", (2, 3), 1.0),
        ("100111", (-1, 3), 0.5),  # the published code: (0, 3), 0.667
        ("1110", (-1, 4), 0.0),
        ("0000", (3, 4), 0.0),  # one class only; the published code: 0.5
        ("1111", (-1, 0), 0.0),
        ("001011", (1, 4), 1 - 2 / 6),
        ("0", (0, 1), 0.0),
    ],
)
def test_known_series(text, zone, confidence):
    y = np.array([int(c) for c in text])
    assert zones(y, 2) == [AmbiguityZone(0, *zone)]
    assert classification_confidence(y, 2) == pytest.approx(confidence)


def test_zones_of_several_boundaries_are_a_union():
    y = np.array([0, 0, 2, 0, 1, 2, 2])
    assert zones(y, 3) == [AmbiguityZone(0, 1, 4), AmbiguityZone(1, 1, 5)]
    assert classification_confidence(y, 3) == pytest.approx(1 - 3 / 7)


def test_nothing_seen():
    assert zones([], 2) == [AmbiguityZone(0, -1, 0)]
    assert classification_confidence([], 2) == 0


@pytest.mark.parametrize("bad", [[0, 2], [-1, 0], [0.5, 1.0], [[0, 1]]])
def test_bad_labels(bad):
    with pytest.raises(ModelError, match="labels: "):
        zones(np.array(bad), 2)
