import json

import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.card import Axis, Card, Training, check

AXIS = np.linspace(9.5603831, 25.5496, 4023)
BASELINE = {"method": "asls", "lam": 1e5, "p": 0.002, "n_iter": 10}


def make(**changes) -> Card:
    fields = {
        "architecture": "cnn",
        "classes": ("before", "after"),
        "axis": Axis.of(AXIS, "2th_deg"),
        "baseline": BASELINE,
        "normalise": "minmax",
        "training": Training(
            digest="0" * 64,
            provenance="series.npz",
            labels={0: 0, 9: 1},
            n_patterns=10,
            recipe={},
            seed=0,
            epochs=1,
            loss=0.1,
        ),
        "n_parameters": 23307,
    }
    return Card(**{**fields, **changes})


def test_round_trip():
    card = make(metrics={"a": {"accuracy": None, "boundaries": [[1, 2]]}}, licence="CC-BY-4.0")
    text = card.to_json()
    assert Card.from_json(text, "card.json") == card
    assert len(text.splitlines()) == len(Card.model_fields) + 2


def test_a_card_from_before_there_were_notes():
    fields = json.loads(make().to_json())
    del fields["training"]["notes"]
    assert Card.from_json(json.dumps(fields), "card.json") == make()


def test_axis_that_is_not_equidistant_is_kept_whole():
    x = np.sin(np.linspace(0.1, 1, 50))
    axis = Card.from_json(make(axis=Axis.of(x, "q_A^-1")).to_json(), "").axis
    assert np.array_equal(axis.values(), x)
    assert Axis.of(AXIS, "2th_deg").points is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a"]}, "card.json: classes: "),
        ({"classes": ["a", "a"]}, "a name is there twice"),
        ({"colour": 1}, "card.json: colour: "),
        ({"axis": {"start": 1, "stop": 0, "n": 5, "unit": "2th_deg"}}, "axis: .*stop 0.0"),
        ({"axis": {"start": 0, "stop": 1, "n": 5, "unit": "deg"}}, "card.json: axis.unit: "),
        (
            {"axis": {"start": 0, "stop": 1, "n": 2, "unit": "2th_deg", "points": [0, 2]}},
            "axis: .*points do not begin",
        ),
        (
            {"axis": {"start": 0, "stop": 1, "n": 3, "unit": "2th_deg", "points": [0, 1]}},
            "axis: .*2 points where n is 3",
        ),
        ({"temperature": 0}, "card.json: temperature: "),
        ({"temperature": float("nan")}, "card.json: "),
        ({"context": -1}, "card.json: context: "),
        ({"baseline": {}}, 'key "method" is missing'),
        ({"sha256": "xyz"}, "card.json: sha256: "),
        ({"n_parameters": None}, "card.json: n_parameters: "),
    ],
)
def test_bad_cards(change, message):
    fields = json.loads(make().to_json()) | change
    with pytest.raises(ModelError, match=message) as error:
        Card.from_json(json.dumps(fields), "card.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe", '{"architecture": "cnn"}'])
def test_not_a_card(text):
    with pytest.raises(ModelError, match=r"card\.json: "):
        Card.from_json(text, "card.json")


def chain(**changes):
    return {"axis": AXIS, "unit": "2th_deg", "baseline": BASELINE, "normalise": "minmax"} | changes


def test_check_takes_its_own():
    step = AXIS[1] - AXIS[0]
    check(make(), **chain())
    check(make(), **chain(axis=AXIS + 0.9e-3 * step))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "q_A^-1"}, r"unit: the patterns have q_A\^-1, the model's card has 2th_deg"),
        ({"unit": None}, "unit: the patterns have None"),
        ({"axis": AXIS[1:]}, "axis: the patterns have 4022 points .* 4023 points from 9.56038 to"),
        ({"axis": AXIS[None]}, "axis: the patterns have shape"),
        ({"axis": AXIS + 2e-3 * (AXIS[1] - AXIS[0])}, "axis: the patterns have .* at point"),
        ({"axis": AXIS * np.nan}, "axis: "),
        ({"baseline": {**BASELINE, "lam": 1e6}}, "baseline: .*1000000.0.*100000.0"),
        ({"baseline": {"method": "none"}}, "baseline: .*none.*asls"),
        ({"normalise": "none"}, "normalise: the patterns have 'none', .*'minmax'"),
        (
            {"baseline": {"method": "none"}, "normalise": "none"},
            "baseline: .*; normalise: .*: reduce",
        ),
    ],
)
def test_check_refuses(change, message):
    with pytest.raises(ModelError, match=message):
        check(make(), **chain(**change))
