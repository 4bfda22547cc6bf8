from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phasewatch.models import create
from phasewatch.models.networks import binned_mlp
from phasewatch.models.networks.bin_points import Points


def net_of(bins=5, n_classes=2, n_points=52, **options):
    torch.manual_seed(0)
    options = {"n_points": n_points, "n_classes": n_classes, "bins": bins, "soft": False} | options
    return create("binned-mlp", **options).eval()


@pytest.mark.parametrize("bins", [1, 15, 18])
def test_parameters(bins):
    assert sum(p.numel() for p in net_of(bins, n_points=4023).parameters()) == 752 * bins


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_class_is_that_of_the_weighted_vote_counted_point_by_point(n_classes):
    net = net_of(n_classes=n_classes)
    net.weight.copy_(torch.tensor([0.0, 0.3, 0.9, 0.05, 0.2]))
    patterns = torch.randn(20, 52)
    points = net.bins(patterns)
    hidden, _, out = net.points
    sums = np.zeros((20, n_classes))
    for b in range(5):
        for i in range(20):
            for x in points[b, :, 10 * i : 10 * i + 10].T:
                h = torch.relu(hidden.weight[b] @ x + hidden.bias[b, :, 0])
                score = out.weight[b] @ h + out.bias[b, :, 0]
                sums[i, score.argmax()] += net.weight[b]
    logits = net(patterns).detach().numpy()
    log = np.log(sums / net.weight.mean().item() + 1)
    expected = log[:, 1:] - log[:, :1] if n_classes == 2 else log
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_softly_the_points_say_how_sure_they_are(n_classes):
    net = net_of(n_classes=n_classes, soft=True)
    net.weight.copy_(torch.tensor([0.0, 0.3, 0.9, 0.05, 0.2]))
    patterns = torch.randn(20, 52)
    log = net.points(net.bins(patterns)).log_softmax(dim=1).reshape(5, n_classes, 20, 10)
    sums = torch.einsum("b,bkni->nk", net.weight / net.weight.mean(), log) / 10
    expected = sums[:, 1:] - sums[:, :1] if n_classes == 2 else sums
    torch.testing.assert_close(net(patterns), expected)


def test_a_curve_of_one_class_alone_has_a_finite_logit():
    net = net_of()
    net.points[2].bias.data[:, 1] = 1e6
    assert net(torch.randn(3, 52)).flatten().tolist() == pytest.approx([np.log(51)] * 3)


def test_believability():
    """The published weights 1.4337 A^2 - 0.4337."""
    a = np.array([0.3, 0.55, 0.6304, 0.7810, 1.0])
    expected = np.maximum(0, 1.4337 * a**2 - 0.4337)
    np.testing.assert_allclose(binned_mlp.believability(a, 2), expected, atol=1e-4)
    assert binned_mlp.believability(np.array([1.1 / 3]), 3)[0] == pytest.approx(0)


def test_accuracy_over_points_and_over_classes(monkeypatch):
    monkeypatch.setattr(binned_mlp, "COUNTED", 7)
    # two bins of 4 points, three patterns of class 0, one of class 1; the first says 0 always
    score = torch.zeros(2, 2, 1)
    score[0, 0] = score[1, 1] = 1.0
    share = torch.eye(2)[torch.tensor([0, 0, 1, 0])]
    points = Points(torch.zeros(16, 2), torch.zeros(2, 4), share)

    def always(x):
        return score.expand(2, 2, x.shape[2])

    plain = binned_mlp.accuracy(always, points, 2, by_class=False)
    assert plain.tolist() == [0.75, 0.25]
    assert binned_mlp.accuracy(always, points, 2, by_class=True).tolist() == [0.5, 0.5]


def test_bins_of_noise_count_alike():
    rng = np.random.default_rng(0)
    rows = rng.random((40, 90), np.float32)
    net = binned_mlp.fit(
        rows[:6],
        np.array([0, 1, 0, 1, 0, 1]),
        series=rows,
        axis=np.arange(90.0),
        n_classes=2,
        recipe=SimpleNamespace(
            name="thesis", epochs=2, replicas=2, noise=1e-3, rate=8e-3, decay=2e-5
        ),
        seed=0,
        progress=None,
        bins=3,
    )
    assert max(net.notes["separability"]) < 0.55
    assert net.notes["bins_alike"]
    assert net.net.weight.tolist() == [1, 1, 1]
