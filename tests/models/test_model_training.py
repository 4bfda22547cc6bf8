from dataclasses import replace

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError
from phasewatch.models.confidence import classification_confidence
from phasewatch.models.evaluate import evaluate
from phasewatch.models.fitting import ANEW, WARM_UP, rate_schedule
from phasewatch.models.labels import Labels
from phasewatch.models.predict import Predictor
from phasewatch.models.series import read_series
from phasewatch.models.training import Recipe, train

FEW = [1, 6, 11, 16, 23, 28, 33, 38]


@pytest.mark.parametrize("model", ["fcnn", "cnn", "conv-sc", "transformer"])
def test_same_seed_same_bits(synthetic, model):
    series, truth = synthetic.series()
    labels = synthetic.labels(truth, FEW)
    torch.manual_seed(99)
    a = train(series, labels, model=model, recipe=Recipe(epochs=2))
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))  # another number of them must not matter
    try:
        b = train(series, labels, model=model, recipe=Recipe(epochs=2))
        assert torch.get_num_threads() != threads
    finally:
        torch.set_num_threads(threads)
    c = train(series, labels, model=model, recipe=Recipe(epochs=2), seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left alone
    weights = [net.state_dict() for net, _, _ in (a, b, c)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])
    assert a[1] == b[1]
    assert np.array_equal(a[2].axes, b[2].axes)
    assert np.array_equal(a[2].limits, b[2].limits)


@pytest.mark.parametrize("model", ["fcnn", "cnn"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_few_labels_are_enough_for_a_run_with_other_conditions(synthetic, model, n_classes):
    series, truth = synthetic.series(n=60, n_classes=n_classes)
    index = [2, 10, 17, 22, 30, 37, 42, 50, 57]
    labels = synthetic.labels(truth, index)
    net, card, novelty = train(series, labels, model=model, recipe=Recipe(epochs=20))
    predictor = Predictor(net, card, novelty, device="cpu")
    other, other_truth = synthetic.series(
        n=30, n_classes=n_classes, seed=5, noise=0.04, shift=1.0, background=0.6
    )
    for run, expected in ((series, truth), (other, other_truth)):
        found = predictor(run.intensity).probability.argmax(axis=1)
        assert np.mean(found == expected) >= 0.95
        assert classification_confidence(found, n_classes) >= 0.9


def test_progress_and_early_stop(synthetic):
    series, truth = synthetic.series()
    calls = []
    recipe = Recipe(epochs=30, patience=2, enough=0.0)
    _, card, _ = train(
        series,
        synthetic.labels(truth, list(range(0, 40, 4))),
        model="fcnn",
        recipe=recipe,
        progress=lambda *call: calls.append(call),
    )
    more = -(-card.training.epochs // ANEW)
    first = [loss for _, _, loss in calls[:-more]]
    best = int(np.argmin(first)) + 1
    assert len(first) in (best + 2, 30)  # no lower loss for two epochs, or the last
    assert (card.training.loss, card.training.epochs) == (first[best - 1], best)
    assert [done for done, _, _ in calls] == list(range(1, len(first) + more + 1))
    assert calls[-1][:2] == (len(first) + more, len(first) + more)


def test_card_says_how(synthetic):
    series, truth = synthetic.series()
    labels = synthetic.labels(truth, FEW)
    _, card, _ = train(series, labels, model="cnn", seed=3, recipe=Recipe(epochs=1), licence="X")
    assert card.classes == ("before", "after")
    assert np.allclose(card.axis.values(), series.axis)
    assert (card.baseline, card.normalise) == (series.baseline, series.normalise)
    assert card.training.labels == {i: int(truth[i]) for i in FEW}
    assert card.training.recipe["augmentation"]["knots"] == 6
    assert (card.training.seed, card.training.n_patterns, card.licence) == (3, 40, "X")
    assert card.temperature == 1.0


def test_empty_bins_and_bad_patterns(synthetic):
    series, truth = synthetic.series()
    y = series.intensity.copy()
    y[:, 40:44] = np.nan
    y[5] = np.nan
    y[7] = 0
    holed = replace(series, intensity=y)
    net, card, novelty = train(
        holed, synthetic.labels(truth, FEW), model="fcnn", recipe=Recipe(epochs=1)
    )
    found = evaluate(Predictor(net, card, novelty, device="cpu"), holed)
    assert found.index.tolist() == [i for i in range(40) if i not in (5, 7)]
    with pytest.raises(ModelError, match="labels: index 5: the pattern cannot be trained on"):
        train(holed, synthetic.labels(truth, [5, 30]), model="fcnn")


def test_every_class_needs_a_pattern(synthetic):
    series, _truth = synthetic.series()
    labels = Labels(np.array([1, 2]), np.array([0, 0]), ("before", "after"))
    with pytest.raises(ModelError, match="class 'after' has no pattern"):
        train(series, labels, model="fcnn")


def test_divergence_is_said(synthetic):
    series, truth = synthetic.series()
    with pytest.raises(ModelError, match="training diverged in epoch"):
        train(series, synthetic.labels(truth, FEW), model="fcnn", recipe=Recipe(rate=float("inf")))


@pytest.mark.parametrize("field", ["epochs", "replicas", "shown", "batch", "patience", "steady"])
def test_recipe(field):
    with pytest.raises(ModelError, match=f"{field} is 0: at least 1"):
        Recipe(**{field: 0})


def nacl_crcl3(data_dir, model, **options):
    """What `model` says of a real heating series after ten labels, and at what temperatures."""
    path = data_dir / "series" / "nacl_crcl3_heating.npz"
    series = read_series(path)
    with np.load(path) as archive:
        truth = archive["labels_derived"]
    index = np.linspace(2, 130, 10).round().astype(np.int64)
    labels = Labels(index, truth[index], ("crystalline", "partly molten", "liquid"))
    net, card, novelty = train(series, labels, model=model, **options)
    everything = Labels(np.arange(133), truth, labels.classes)
    found = evaluate(Predictor(net, card, novelty, device="cpu"), series, everything)
    return found, series.order


def test_nacl_crcl3(data_dir):
    """Ten labels find its transition between 405 and 410 C."""
    found, temperature = nacl_crcl3(data_dir, "fcnn")
    assert found.accuracy > 0.97
    assert found.confidence > 0.95
    assert [temperature[i] for i in found.boundary(found.zones[0])] == [405, 410]


def test_a_network_that_looks_back_learns_from_patterns_that_are_alike_but_for_little(data_dir):
    """Without the rise of its rate the Transformer answered nearly the same to all of them."""
    found, _ = nacl_crcl3(data_dir, "transformer")
    assert found.accuracy > 0.9
    assert found.confidence > 0.95


@pytest.mark.parametrize("rising", [False, True])
def test_the_rate_falls_along_a_cosine_perhaps_after_it_has_risen(rising):
    steps, warm = 40, 40 // WARM_UP
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.0)
    schedule = rate_schedule(optimiser, steps, rising=rising)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    step = np.arange(steps)
    expected = 1.5 * (1 + np.cos(np.pi * step / steps))
    if rising:
        expected *= np.minimum((step + 1) / (warm + 1), 1)
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


def test_a_series_without_a_transition_gets_none(data_dir):
    """Drift alone, labelled as if it were two phases: no boundary that could be believed."""
    series = read_series(data_dir / "series" / "mgmn2o4_yocl_gradient.npz")
    n = len(series)
    index = np.concatenate([np.linspace(5, n // 4, 5), np.linspace(n - n // 4, n - 6, 5)])
    labels = Labels(index.astype(np.int64), np.repeat([0, 1], 5), ("before", "after"))
    net, card, novelty = train(series, labels, model="fcnn")
    found = evaluate(Predictor(net, card, novelty, device="cpu"), series)
    assert found.confidence < 0.5
    assert found.probability.max(axis=1).mean() < 0.7
