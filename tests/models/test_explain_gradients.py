import numpy as np
import pytest
import torch
from torch import nn

from phasewatch.models import ModelError, create
from phasewatch.models.explain.along import METHODS, Importance, class_means, importance
from phasewatch.models.explain.gradients import gradient, integrated
from phasewatch.models.explain.scores import log_odds


@pytest.fixture
def patterns():
    rng = np.random.default_rng(0)
    index = np.arange(160)
    shape = [np.exp(-(((index - 40 - 5 * i) / 4) ** 2)) for i in range(7)]
    return (np.array(shape) + rng.normal(0, 0.05, (7, 160))).astype(np.float32)


def fresh(name, *, n_classes=3, **options):
    torch.manual_seed(1)
    return create(name, n_points=160, n_classes=n_classes, **options).eval()


def linear(weight):
    net = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
        net.bias.fill_(0.3)
    return net


def test_log_odds_are_those_of_the_probability():
    z = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, -2.0]], dtype=torch.float64)
    p = torch.softmax(z / 2, dim=1)
    torch.testing.assert_close(log_odds(z, temperature=2), torch.log(p / (1 - p)))
    one = torch.tensor([[0.7]])
    torch.testing.assert_close(log_odds(one), torch.tensor([[-0.7, 0.7]]))


def test_signs_of_a_linear_network():
    weight = np.array([[1.0, -2.0, 0.0, 0.5]], np.float32)
    x = np.array([[1.0, 1.0, 1.0, -2.0], [0.0, 3.0, 1.0, 2.0]], np.float32)
    found = importance(linear(weight), x, temperature=2.0)
    for row in found["gradient"].values[1]:
        np.testing.assert_allclose(row, weight[0] / 2)
    np.testing.assert_array_equal(found["gradient"].values[0], -found["gradient"].values[1])
    np.testing.assert_allclose(found["absolute"].values[0], np.abs(weight / 2).repeat(2, axis=0))
    np.testing.assert_allclose(found["input-x-gradient"].values[1], x * weight / 2)
    away = x - x.mean(axis=0)
    np.testing.assert_allclose(
        found["integrated"].values[1], away * weight / 2, rtol=1e-5, atol=1e-7
    )
    assert found["integrated"].gap < 1e-5
    assert found["gradient"].gap is None


def test_gradient_of_each_of_three_classes_by_differences():
    net = fresh("fcnn").double()
    x = torch.rand(2, 160, dtype=torch.float64)
    found = gradient(net, x)
    for j in (0, 80, 159):
        step = torch.zeros_like(x)
        step[:, j] = 1e-6
        rise = (log_odds(net(x + step)) - log_odds(net(x - step))) / 2e-6
        torch.testing.assert_close(found[:, :, j], rise.T, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", ["fcnn", "cnn", "conv-sc"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_integrated_gradients_are_complete(name, n_classes, patterns):
    net = fresh(name, n_classes=n_classes).double()
    x, base = torch.from_numpy(patterns[0]).double(), torch.from_numpy(patterns.mean(0)).double()
    found = integrated(net, x, base, steps=200)
    with torch.no_grad():
        rise = log_odds(net(x[None]))[0] - log_odds(net(base[None]))[0]
    total = found.importance.double().sum(dim=1)
    torch.testing.assert_close(found.rise, rise)
    torch.testing.assert_close(found.gap, total - rise, rtol=0, atol=1e-5)
    assert found.gap.abs().max() < 0.01 * rise.abs().max()


def test_the_gap_tells_of_too_few_steps(patterns):
    net = fresh("fcnn")
    one, many = (
        importance(net, patterns, methods=["integrated"], steps=k)["integrated"] for k in (1, 64)
    )
    assert one.rise == many.rise
    assert many.gap < 0.05 * many.rise < one.gap


def test_a_pattern_is_explained_by_itself(patterns):
    net = fresh("cnn")
    whole = importance(net, patterns, steps=4)
    base = patterns.astype(np.float64).mean(axis=0).astype(np.float32)
    some = importance(net, patterns, at=np.array([2, 5]), baseline=base, steps=4)
    for method in METHODS:
        np.testing.assert_array_equal(some[method].values, whole[method].values[:, [2, 5]])


@pytest.mark.parametrize("name", ["lstm", "transformer", "conv-sct"])
def test_windows_of_sequence_networks(name, patterns):
    net, patterns = fresh(name, n_classes=2, context=2), patterns[:4]
    done = []
    found = importance(net, patterns, steps=2, progress=lambda *a: done.append(a))
    assert done[-1] == (4, 4)
    for method, one in found.items():
        assert one.values.shape == (2, 4, 160)
        assert one.window.shape == (2, 4, 3)
        there = ~np.isnan(one.window[0])
        np.testing.assert_array_equal(there, [[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]])
        of_points = np.abs(one.values) if method == "gradient" else one.values
        np.testing.assert_allclose(of_points.sum(axis=2), one.window[:, :, -1], atol=1e-4)

    last = importance(net, patterns, methods=["integrated"], at=np.array([3]), steps=256)
    windows = torch.from_numpy(np.stack([patterns[1:], np.tile(patterns.mean(0), (3, 1))]))
    with torch.no_grad():
        score = log_odds(net(windows)).numpy()
    rise = score[0] - score[1]
    total = last["integrated"].window[:, 0].sum(axis=1)
    np.testing.assert_allclose(total, rise, atol=0.05 * np.ptp(rise))


def test_votes_have_no_gradient():
    class Votes(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(x.argmax(dim=1), 4)[:, :3].float()

    with pytest.raises(ModelError, match="the network votes"):
        gradient(Votes(), torch.rand(2, 4))


def test_class_means():
    values = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    found = class_means(values, np.array([0, 0, 0]))
    np.testing.assert_array_equal(found[0], [2, 3])
    assert np.isnan(found[1]).all()


def test_an_importance_says_how_far_it_is_not_all():
    values = np.zeros((2, 1, 4), np.float32)
    assert Importance(values).incomplete == ""
    assert Importance(values, gap=0.4, rise=4.0).incomplete == ""
    assert "rise by 4.4 on average, and the sum misses that by up to 19" in (
        Importance(values, gap=19.2, rise=4.4).incomplete
    )
