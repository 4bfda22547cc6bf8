from dataclasses import replace

import numpy as np
import pytest

from phasewatch.models import ModelError
from phasewatch.models.evaluate import Evaluation, evaluate
from phasewatch.models.labels import Labels
from phasewatch.models.predict import Predictor
from phasewatch.models.report import draw
from phasewatch.models.training import Recipe, train


@pytest.fixture(scope="module")
def setting(synthetic):
    series, truth = synthetic.series()
    model = train(
        series,
        synthetic.labels(truth, [1, 8, 15, 24, 31, 38]),
        model="fcnn",
        recipe=Recipe(epochs=15),
    )
    return Predictor(*model, device="cpu"), series, truth


def test_evaluation(setting, synthetic):
    predictor, series, truth = setting
    found = evaluate(predictor, series, synthetic.labels(truth, list(range(40))))
    assert found.accuracy == np.mean(found.label == truth)
    assert found.n_labelled == 40
    assert np.array_equal(found.label, found.probability.argmax(axis=1))
    metrics = found.metrics()
    assert metrics["confidence"] == found.confidence
    assert metrics["boundaries"] == [(19, 20)]
    assert evaluate(predictor, series).accuracy is None


def test_wrong_labels_count_as_wrong(setting):
    predictor, series, truth = setting
    found = evaluate(predictor, series, Labels(np.arange(40), 1 - truth, ("before", "after")))
    assert found.accuracy == pytest.approx(1 - np.mean(found.label == truth))


def test_boundaries_are_positions_in_the_series(setting):
    predictor, series, _ = setting
    y = series.intensity.copy()
    y[[0, 19, 20, 39]] = np.nan
    found = evaluate(predictor, replace(series, intensity=y))
    assert found.boundary(found.zones[0]) == (18, 21)
    early = evaluate(predictor, replace(series, intensity=y[:10]))
    assert early.boundary(early.zones[0]) == (9, 10)
    late = evaluate(predictor, replace(series, intensity=y[25:]))
    assert late.boundary(late.zones[0])[0] == -1
    assert early.confidence == late.confidence == 0


def test_labels_on_unusable_patterns_are_not_right(setting):
    predictor, series, truth = setting
    y = series.intensity.copy()
    y[3] = np.nan
    found = evaluate(
        predictor,
        replace(series, intensity=y),
        Labels(np.array([2, 3]), truth[[2, 3]], ("before", "after")),
    )
    assert found.accuracy == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalise": "none"}, "normalise: "),
        ({"unit": "q_A^-1"}, "unit: "),
        ({"baseline": {"method": "none"}}, "baseline: "),
        ({"intensity": np.full((2, 160), np.nan, np.float32)}, "no pattern can be used; pattern 0"),
    ],
)
def test_series_that_does_not_fit(setting, change, message):
    predictor, series, _ = setting
    with pytest.raises(ModelError, match=message):
        evaluate(predictor, replace(series, **change))


def test_other_classes(setting):
    predictor, series, truth = setting
    with pytest.raises(ModelError, match="labels: classes after, before, the model has before"):
        evaluate(predictor, series, Labels(np.arange(40), truth, ("after", "before")))


def test_picture(setting, synthetic, tmp_path):
    predictor, series, truth = setting
    y = series.intensity.copy()
    y[4] = np.nan
    y[:, 10] = np.inf
    series = replace(series, intensity=y)
    found = evaluate(predictor, series)
    flipped = found.label.copy()
    flipped[[2, 30]] = 1 - flipped[[2, 30]]
    ambiguous = replace(found, label=flipped)
    labels = synthetic.labels(truth, [1, 38])
    for name, case in {"a.png": found, "b.png": ambiguous}.items():
        draw(tmp_path / name, series, case, ("before", "after"), labels=labels, title="t")
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert isinstance(case, Evaluation)
