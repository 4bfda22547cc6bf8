import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError, registry
from phasewatch.models.augment import Augmentation, noise_level, replicate
from phasewatch.models.fit import Fit
from phasewatch.models.labels import Labels
from phasewatch.models.losses import balanced, divergence
from phasewatch.models.recipes import NAMES, THESIS, Recipe, Thesis, named
from phasewatch.models.store import load, save
from phasewatch.models.temperature import BOUNDS, fit_temperature
from phasewatch.models.training import train
from phasewatch.models.validation import FEWEST, split
from phasewatch.models.windows import Labelled, logits

FEW = [1, 5, 9, 13, 17, 22, 26, 30, 34, 38]


class Toy(torch.nn.Module):
    """The mean of the last pattern, and half that of the ones before."""

    context = 3

    def embed(self, patterns):
        return patterns.mean(dim=1, keepdim=True)

    def follow(self, windows):
        return windows[:, -1] + windows[:, :-1].sum(dim=1) / 2

    def forward(self, windows):
        return self.follow(self.embed(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]))


def test_thesis_has_the_published_values():
    assert [THESIS[m].epochs for m in ("fcnn", "cnn", "resnet", "lstm", "transformer")] == [
        300,
        5,
        4,
        25,
        30,
    ]
    sc = named("thesis", "conv-sc")
    assert (sc.epochs, sc.rate, sc.decay, sc.replicas) == (8, 8e-3, 2e-4, 50)
    assert sc.noise * 45.90664283740434 == pytest.approx(1 / 6)
    assert named("thesis", "cnn", epochs=2) == Thesis(2)
    assert [named(name, "cnn").name for name in NAMES] == list(NAMES)
    assert set(THESIS) >= set(registry.names())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: named("theses", "cnn"), "recipe 'theses' is not known; there are: phasewatch, th"),
        (lambda: named("thesis", "mine"), "the thesis has no model 'mine'; use phasewatch"),
        (lambda: Recipe(name="thesis"), "values of 'thesis' depend on the model"),
        (lambda: Thesis(0), "epochs is 0: at least 1"),
    ],
)
def test_bad_recipes(call, message):
    with pytest.raises(ModelError, match=message):
        call()


def test_the_steps_of_the_thesis(synthetic):
    """Five steps by hand, in one chunk, give the weights that the recipe does."""
    series, truth = synthetic.series()
    labels = synthetic.labels(truth, FEW)
    recipe = Thesis(5, replicas=3)
    net, card, _ = train(series, labels, model="fcnn", seed=4, recipe=recipe)
    torch.manual_seed(4)
    again = registry.create("fcnn", n_points=160, n_classes=2)
    rng = np.random.default_rng([4, 0])
    clean = series.intensity[FEW]
    amplitude = recipe.noise * np.ptp(series.intensity)
    sets = [clean] + [
        clean + np.float32(amplitude) * rng.random(clean.shape, np.float32) for _ in range(3)
    ]
    x = torch.from_numpy(np.concatenate(sets))
    y = torch.from_numpy(np.tile(labels.label, 4)).float()
    adam = torch.optim.Adam(again.parameters(), lr=2e-3, weight_decay=2e-5)
    for _ in range(5):
        adam.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(again(x)[:, 0], y)
        loss.backward()
        adam.step()
    for ours, theirs in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert card.training.loss == pytest.approx(loss.item(), rel=1e-4)
    assert (card.training.epochs, card.temperature) == (5, 1.0)
    assert card.training.recipe["name"] == "thesis"
    assert card.training.notes["noise_amplitude"] == pytest.approx(amplitude)


def test_batch_normalisation_knows_its_patterns_after_a_few_steps(synthetic):
    series, truth = synthetic.series()
    labels = synthetic.labels(truth, FEW)
    net, _, _ = train(series, labels, model="cnn", recipe=Thesis(1, replicas=0))
    held = {}
    norm = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d))
    norm.register_forward_pre_hook(lambda _, x: held.update(x=x[0]))
    with torch.no_grad():
        net(torch.from_numpy(series.intensity[FEW]))
    assert torch.allclose(norm.running_mean, held["x"].mean(dim=(0, 2)), atol=1e-5)
    assert torch.allclose(norm.running_var, held["x"].var(dim=(0, 2)), rtol=1e-3, atol=1e-6)
    assert norm.momentum == 0.1


def test_split_in_time():
    label = np.array([0] * 7 + [1] * 5 + [2] * 4)
    trained, held, spared = split(label)
    assert held.tolist() == [1, 4, 8, 11]
    assert spared.tolist() == [12, 13, 14, 15]
    assert FEWEST == 5
    assert sorted([*trained, *held]) == list(range(16))


def test_held_out_labels_are_named_and_trained_on_in_the_end(synthetic):
    series, truth = synthetic.series(n=60)
    index = [2, 8, 14, 20, 26, 31, 40, 50]
    _, card, _ = train(
        series, synthetic.labels(truth, index), model="fcnn", recipe=Recipe(epochs=3)
    )
    assert card.training.notes["held_out"] == [8, 26]
    assert card.training.notes["not_validated"] == [1]
    assert sorted(card.training.labels) == index
    assert BOUNDS[0] <= card.temperature <= BOUNDS[1]


def shares(label, n_classes=2):
    return torch.from_numpy(np.eye(n_classes)[np.asarray(label)])


def test_temperature_minimises_the_cross_entropy():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(0, 2, (4000, 1)))
    label = (rng.random(4000) < 1 / (1 + np.exp(-z[:, 0].numpy()))).astype(int)
    assert fit_temperature(3 * z, shares(label)) == pytest.approx(3, rel=0.1)
    right = torch.from_numpy(np.array([[5.0], [-5.0]]))
    assert fit_temperature(right, shares([1, 0])) == BOUNDS[0]
    assert fit_temperature(right, shares([0, 1])) == BOUNDS[1]
    three = torch.from_numpy(rng.normal(0, 2, (4000, 3)))
    p = torch.softmax(three, 1).numpy()
    label = (rng.random((4000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(2 * three, shares(label, 3)) == pytest.approx(2, rel=0.1)


def test_classes_count_alike():
    label = np.array([0, 0, 0, 1])
    z = torch.tensor([[1.0], [1.0], [1.0], [-2.0]])
    one = torch.nn.functional.binary_cross_entropy_with_logits
    each = [one(torch.tensor([a]), torch.tensor([b])) for a, b in ((1.0, 0.0), (-2.0, 1.0))]
    found = divergence(z, shares(label), balanced(label, 2))
    assert float(found) == pytest.approx(float(sum(each)) / 2)


def test_probabilities_that_are_the_shares_do_not_diverge():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    assert float(divergence(p.log().clamp(min=-100), p)) == pytest.approx(0, abs=1e-6)
    two = torch.tensor([[0.25, 0.75]])
    assert float(divergence(torch.tensor([[3.0]]).log(), two)) == pytest.approx(0, abs=1e-6)
    apart = divergence(torch.zeros(1, 3), p[:1])
    assert float(apart) == pytest.approx(float((p[0] * (3 * p[0]).log()).sum()))


def test_windows_end_at_the_labelled_pattern():
    patterns = np.arange(8, dtype=np.float32)[:, None] + np.zeros((1, 5), np.float32)
    data = Labelled(patterns, np.array([0, 2, 7]), np.array([0, 0, 1]), 3, np.zeros(8))
    assert data.longest().tolist() == [1, 3, 4]
    rows = np.array([2, 0, 1])
    held, window = data.windows(rows, np.array([4, 1, 3]))
    assert held.tolist() == [4, 5, 6, 7, 0, 0, 1, 2]
    assert window.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]
    drawn = [data.lengths(rows, np.random.default_rng(k)) for k in range(50)]
    assert {tuple(t) for t in drawn} == {(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 3)}
    found = logits(Toy(), torch.from_numpy(patterns[held]), np.array([4, 1, 3]))
    assert found[:, 0].tolist() == [7 + 15 / 2, 0, 2 + 1 / 2]


def test_a_window_shares_its_shift_and_warp_but_not_its_noise():
    rng = np.random.default_rng(0)
    x = np.tile(rng.random(400).cumsum().astype(np.float32), (4, 1))
    group = np.array([0, 0, 1, 1])
    quiet = replicate(x, np.random.default_rng(1), Augmentation(noise=0.0), group=group)
    assert np.array_equal(quiet[0], quiet[1])
    assert not np.allclose(quiet[1], quiet[2])
    loud = replicate(x, np.random.default_rng(1), Augmentation(), group=group)
    assert not np.array_equal(loud[0], loud[1])
    level = np.array([noise_level(y) for y in x])
    again = replicate(x, np.random.default_rng(1), Augmentation(), group=group, level=level)
    assert np.array_equal(loud, again)


@pytest.mark.parametrize("recipe", NAMES)
def test_sequence_networks_are_trained_on_windows(synthetic, recipe):
    series, truth = synthetic.series()
    y = series.intensity.copy()
    y[10] = np.nan  # never in a window
    series = replace(series, intensity=y)
    labels = synthetic.labels(truth, FEW)
    how = named(recipe, "lstm", epochs=1)
    net, card, _ = train(series, labels, model="lstm", recipe=how, context=2)
    assert card.context == net.context == 2
    assert card.options == {"context": 2}
    again, _, _ = train(series, labels, model="lstm", recipe=how, context=2)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())


def test_a_series_may_be_shorter_than_the_context(synthetic):
    series, truth = synthetic.series(n=12)
    labels = synthetic.labels(truth, [0, 4, 7, 11])
    net, card, _ = train(series, labels, model="transformer", recipe=Recipe(epochs=1), context=50)
    assert card.context == 50
    assert all(v.isfinite().all() for v in net.state_dict().values())


def test_only_sequence_networks_have_a_context(synthetic):
    series, truth = synthetic.series()
    with pytest.raises(ModelError, match="model 'cnn' has no option 'context'"):
        train(series, synthetic.labels(truth, FEW), model="cnn", context=3)


@pytest.fixture
def own(monkeypatch):
    """An architecture with a fit of its own: the nearest of class means."""

    def build(*, n_points, n_classes, scale=1.0):
        net = torch.nn.Linear(n_points, 1)
        net.weight.requires_grad_(False)
        net.register_buffer("scale", torch.tensor(scale))
        return net

    def fit(patterns, label, *, series, axis, n_classes, recipe, seed, progress, width=2.0):
        net = build(n_points=patterns.shape[1], n_classes=n_classes, scale=width)
        means = [patterns[label == k].mean(axis=0) for k in range(2)]
        with torch.no_grad():
            net.weight[0] = torch.from_numpy(means[1] - means[0])
            net.bias[0] = float((means[0] ** 2).sum() - (means[1] ** 2).sum()) / 2
        progress(1, 1, 0.25)
        notes = {"recipe": recipe.name, "patterns": len(series), "start": float(axis[0])}
        return Fit(net, {"scale": width}, 1, 0.25, notes)

    module = ModuleType("own_architecture")
    module.build, module.fit, module.NOTE = build, fit, "of means"
    monkeypatch.setitem(sys.modules, "own_architecture", module)
    monkeypatch.setitem(registry._modules, "means", "own_architecture")


def test_an_architecture_may_train_itself(own, synthetic, tmp_path):
    series, truth = synthetic.series()
    labels = synthetic.labels(truth, FEW)
    calls = []
    parts = train(
        series, labels, model="means", progress=lambda *call: calls.append(call), width=3.0
    )
    assert calls == [(1, 1, 0.25)]
    card = save(tmp_path / "model", *parts)
    assert card.options == {"scale": 3.0}
    assert card.training.notes == {
        "recipe": "phasewatch",
        "patterns": 40,
        "start": 5.0,
        "architecture": "of means",
    }
    net, again, _ = load(tmp_path / "model")
    assert again == card
    assert torch.equal(net.weight, parts[0].weight)
    with pytest.raises(ModelError, match="model 'means' has no option 'depth'; it has: width"):
        train(series, labels, model="means", depth=1)


@pytest.mark.parametrize(
    ("index", "label", "message"),
    [
        ([1, 40], [0, 1], "labels: index 1 to 40: the series has 40 patterns, 0 to 39"),
        ([-1, 30], [0, 1], "labels: index -1 to 30: the series has"),
        ([9, 9], [0, 1], "labels: index does not increase"),
        ([1, 30], [0, 2], "labels: label 0 to 2 where classes are 0 to 1"),
        ([1, 2], [0, 0], "labels: class 'after' has no pattern"),
        ([], [], "labels: class 'before' has no pattern"),
    ],
)
def test_labels_that_cannot_be_trained_on(synthetic, index, label, message):
    series, _ = synthetic.series()
    labels = Labels(np.array(index, np.int64), np.array(label, np.int64), ("before", "after"))
    with pytest.raises(ModelError, match=message) as error:
        train(series, labels, model="fcnn")
    assert "\n" not in str(error.value)
