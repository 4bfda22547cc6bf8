"""What both binned networks share, and the two of them on a small series."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError, create
from phasewatch.models.confidence import classification_confidence
from phasewatch.models.mixing import Mixed
from phasewatch.models.networks import bin_points, binned_fcnn, binned_mlp
from phasewatch.models.networks import bins as shared
from phasewatch.models.predict import eager
from phasewatch.models.training import Recipe

MODULES = {"binned-mlp": binned_mlp, "binned-fcnn": binned_fcnn}
INDEX = [2, 10, 17, 22, 30, 37, 42, 50, 57]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Fewer hidden values than published: a fit takes half a second."""
    for module in MODULES.values():
        monkeypatch.setattr(module, "HIDDEN", 40)


def thesis(epochs=80):
    noise = 1 / 12 / shared.LARGEST
    values = {"epochs": epochs, "replicas": 10, "noise": noise, "rate": 8e-3, "decay": 2e-5}
    return SimpleNamespace(name="thesis", **values)


def fitted(model, series, truth, *, n_classes=2, how=None, progress=None, index=INDEX, **more):
    options = {"seed": 0, "bins": 5} | more
    return MODULES[model].fit(
        series.intensity[index],
        truth[index].astype(np.int64),
        series=series.intensity,
        axis=series.axis,
        n_classes=n_classes,
        recipe=how or Recipe(epochs=10),
        progress=progress,
        **options,
    )


@pytest.mark.parametrize("model", MODULES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_few_labels_are_enough(synthetic, model, n_classes):
    series, truth = synthetic.series(n=60, n_classes=n_classes)
    fit = fitted(model, series, truth, n_classes=n_classes)
    found = eager(fit.net, series.intensity).argmax(axis=1)
    assert np.mean(found == truth) >= 0.95
    assert classification_confidence(found, n_classes) >= 0.9
    assert fit.epochs <= 10
    other, other_truth = synthetic.series(n=30, n_classes=n_classes, seed=5, noise=0.03)
    p = eager(fit.net, 50 * other.intensity + 9)  # in other units
    assert np.mean(p.argmax(axis=1) == other_truth) >= 0.9
    assert -np.log(p[np.arange(30), other_truth]).mean() < 0.5


@pytest.mark.parametrize("model", MODULES)
def test_the_same_seed_gives_the_same_bits_and_options_make_room_for_them(synthetic, model):
    series, truth = synthetic.series(n=60)
    how = Recipe(epochs=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fits = [fitted(model, series, truth, how=how, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    a, b, c = (fit.net.state_dict() for fit in fits)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)
    again = create(model, n_points=160, n_classes=2, **fits[0].options)
    again.load_state_dict(a)
    assert np.array_equal(a["bins.axis"], series.axis)
    with pytest.raises(RuntimeError, match=r"bins\.axis"):  # 161 has the same bins
        create(model, n_points=161, n_classes=2, **fits[0].options).load_state_dict(a)
    together = eager(again.eval(), series.intensity)
    alone = np.concatenate([eager(fits[0].net, row[None]) for row in series.intensity])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("model", MODULES)
def test_the_recipe_of_the_thesis(synthetic, model, monkeypatch):
    series, truth = synthetic.series(n=60)
    monkeypatch.setattr(MODULES[model], "DRAWN", 256)
    calls = []
    fit = fitted(model, series, truth, how=thesis(), progress=lambda *call: calls.append(call))
    assert fit.epochs == fit.notes["steps"] == len(calls) <= 80
    assert calls[0][:2] == (1, 80)
    assert {"bins": 5, "standardise_bins": False}.items() <= fit.options.items()
    assert not fit.options.get("soft")
    bins, level = fit.net.bins, fit.net.level
    assert (level.gain, level.offset) == (1, 0)
    np.testing.assert_allclose(bins.position.flatten(), series.axis, rtol=1e-6)
    x = bins.scaled(torch.from_numpy(series.intensity))
    assert float(x.min()) == pytest.approx(0, abs=1e-5)
    assert float(x.max()) == pytest.approx(45.9066428, rel=1e-6)
    assert np.mean(eager(fit.net, series.intensity).argmax(axis=1) == truth) > 0.9


def test_published_replicas_keep_the_originals():
    x = np.random.default_rng(0).random((3, 50), np.float32)
    series = np.array([[1, 1 + 2 * shared.LARGEST]])
    how = SimpleNamespace(replicas=4, noise=1 / 12 / shared.LARGEST)
    rows, share = bin_points.published(x, np.array([0, 1, 1]), series, 2, how, 0)
    assert rows.shape == (15, 50)
    assert share.tolist() == [[1, 0], [0, 1], [0, 1]] * 5
    assert np.array_equal(rows[:3], x)
    noise = rows[3:].reshape(4, 3, 50) - x
    assert noise.min() > -1e-6
    assert noise.max() < 2 / 12 + 1e-6
    assert noise.mean() == pytest.approx(1 / 12, rel=0.1)
    assert abs(np.corrcoef(noise.reshape(4, -1))[0, 1:]).max() < 0.4  # each drawn anew


def test_bins_cut_where_they_should():
    bins = shared.Bins(name="x", n_points=17, bins=3, standardise_bins=False)
    patterns = np.arange(34, dtype=np.float32).reshape(2, 17)
    bins.leave(np.array([0, shared.LARGEST]), np.arange(17) + 0.5)
    x = bins(torch.from_numpy(patterns))
    assert x.shape == (3, 2, 10)
    assert x[1, 0].tolist() == [5.5, 6.5, 7.5, 8.5, 9.5] * 2
    assert x[1, 1].tolist() == [5, 6, 7, 8, 9, 22, 23, 24, 25, 26]
    points = bin_points.Points.of(bins, Mixed(patterns, np.eye(2, dtype=np.float32)))
    every, of = points.take(torch.arange(len(points)))
    assert torch.equal(every, x)
    assert of.tolist() == [[1, 0]] * 5 + [[0, 1]] * 5


def test_intensities_are_means_of_neighbours_and_of_fewer_at_the_ends():
    bins = shared.Bins(name="x", n_points=9, bins=1, standardise_bins=False, smooth=3)
    patterns = np.arange(9, dtype=np.float32)[None] ** 2
    x = bins.scaled(torch.from_numpy(patterns))[0, 0].numpy()
    inner = (patterns[0, :-2] + patterns[0, 1:-1] + patterns[0, 2:]) / 3
    np.testing.assert_allclose(x, [0.5, *inner, 56.5])


@pytest.mark.parametrize("smooth", [0, 2, -1])
def test_means_are_over_an_odd_number_of_points(smooth):
    with pytest.raises(ModelError, match=f"smooth={smooth}: an odd number"):
        shared.Bins(name="x", n_points=9, bins=1, standardise_bins=False, smooth=smooth)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_replicas_of_two_classes_are_mixed_and_those_held_out_are_of_others(n_classes):
    x = np.random.default_rng(0).random((n_classes, 50), np.float32)
    shown, tried, held = bin_points.ours(x, np.arange(n_classes), n_classes, Recipe(), 0)
    assert len(shown.share) == n_classes * 32
    assert set(held.share.max(axis=1)) == {1}
    for made in (shown, tried):
        mixed = made.share.max(axis=1) < 1
        assert mixed.any() == (n_classes == 2)
        np.testing.assert_allclose(made.share.sum(axis=1), 1, rtol=1e-6)
    whole = tried.share.max(axis=1) == 1
    assert np.array_equal(tried.patterns[whole], held.patterns[whole])
    assert not np.isin(shown.patterns, held.patterns).any()


def test_each_bin_of_a_pattern_is_standardised_by_itself():
    rng = np.random.default_rng(1)
    patterns = rng.gamma(2, 3, (6, 40)).astype(np.float32)
    patterns[:, 30:] = 0.1  # a bin without signal, but for rounding
    bins = shared.Bins(name="x", n_points=40, bins=4, standardise_bins=True, smooth=3)
    patterns[:, 29] = patterns[:, 30:].mean()
    bins.scale(np.geomspace(1, 9, 40))
    x = bins(torch.from_numpy(patterns)).unflatten(2, (6, 10))
    assert x.isfinite().all()
    torch.testing.assert_close(x.mean(dim=3), torch.zeros(4, 2, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:3].std(dim=3), torch.ones(3, 2, 6))
    assert x[3, 1].abs().max() < 0.5  # not blown up to unit variance


def test_a_line_of_another_height_in_its_bin_gives_the_same_points():
    patterns = np.random.default_rng(2).random((1, 40), np.float32)
    other = patterns.reshape(1, 4, 10) * np.array([[1], [3], [0.2], [40]], np.float32) + 5
    bins = shared.Bins(name="x", n_points=40, bins=4, standardise_bins=True)
    x, y = (bins.scaled(torch.from_numpy(p.reshape(1, 40))) for p in (patterns, other))
    torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def test_a_constant_pattern_is_zeros():
    bins = shared.Bins(name="x", n_points=8, bins=2, standardise_bins=True)
    assert not bins.scaled(torch.full((1, 8), 7.0)).any()


def test_votes_have_the_value_of_one_and_the_gradient_of_the_other():
    soft = torch.tensor([0.3, 0.9], requires_grad=True)
    found = shared.votes(soft, soft > 0.5)
    assert found.tolist() == [0, 1]
    (found * torch.tensor([2.0, 5.0])).sum().backward()
    assert soft.grad.tolist() == [2, 5]


@pytest.mark.parametrize("outputs", [1, 3])
def test_level_finds_the_share_that_tells_the_classes(outputs):
    rng = np.random.default_rng(2)
    n_classes = max(2, outputs)
    label = np.repeat(np.arange(n_classes), (40, 10, 10)[:n_classes])
    signal = 0.05 * (label[:, None] if outputs == 1 else np.eye(3)[label])
    z = torch.from_numpy(3 + signal + 0.01 * rng.normal(size=(len(label), outputs)))
    level = shared.Level(outputs)
    level.fit(z, np.eye(n_classes)[label])
    out = level(z.float())
    found = (out[:, 0] > 0).long() if outputs == 1 else out.argmax(dim=1)
    assert (found.numpy() == label).mean() > 0.97
    assert 1 < out.abs().max() < 20  # no infinite gain where classes are far apart


@pytest.mark.parametrize("model", MODULES)
def test_progress(synthetic, model):
    series, truth = synthetic.series(n=60)
    calls = []
    fit = fitted(
        model, series, truth, how=Recipe(epochs=3), progress=lambda *call: calls.append(call)
    )
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert fit.loss == min(loss for _, _, loss in calls)
    early = fitted(model, series, truth, how=Recipe(epochs=9, enough=9.0))
    assert early.epochs == 1
    stalled = fitted(model, series, truth, how=Recipe(epochs=40, patience=1, enough=0.0))
    assert stalled.epochs < 40


@pytest.mark.parametrize("model", MODULES)
def test_refusals(synthetic, model):
    series, truth = synthetic.series(n=60)
    for bins in (0, 81):
        with pytest.raises(ModelError, match=f"{model}: bins={bins} for n_points=160: 1 to 80"):
            fitted(model, series, truth, bins=bins)
    with pytest.raises(ModelError, match="training diverged in step"):
        fitted(model, series, truth, how=Recipe(rate=float("inf")))


@pytest.mark.parametrize("model", MODULES)
def test_gradients_reach_the_pattern(synthetic, model):
    series, truth = synthetic.series(n=60)
    net = fitted(model, series, truth, how=Recipe(epochs=2)).net
    x = torch.from_numpy(series.intensity[:3]).requires_grad_()
    logits = net(x)
    with torch.inference_mode():
        np.testing.assert_allclose(logits.detach(), net(x.detach()), rtol=1e-5)
    logits.sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).float().mean() > 0.9
