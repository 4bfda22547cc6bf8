import numpy as np
import pytest
import torch
from torch import nn

from phasewatch.models import create
from phasewatch.models.networks import binned_fcnn
from phasewatch.models.networks.bin_points import Points
from phasewatch.models.predict import eager


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("bins", range(1, 17))
def test_parameters(bins):
    assert count(create("binned-fcnn", n_points=4023, n_classes=2, bins=bins)) == 1058 * bins + 1
    for k in (3, 5):
        net = create("binned-fcnn", n_points=4023, n_classes=k, bins=bins)
        assert count(net) == bins * (750 + 153 * k + k**2) + k


def test_samples_are_what_separate_layers_give():
    torch.manual_seed(0)
    net = binned_fcnn.Samples(bins=3, n_classes=2)
    x = torch.randn(3, 2, 40)
    features = []
    for b in range(3):
        first, second = nn.Linear(2, 150), nn.Linear(150, 2)
        first.weight.data, first.bias.data = net.hidden.weight[b], net.hidden.bias[b, :, 0]
        second.weight.data, second.bias.data = net.features.weight[b], net.features.bias[b, :, 0]
        layers = (first, nn.BatchNorm1d(150), nn.ReLU(), second, nn.BatchNorm1d(2), nn.Sigmoid())
        features.append(nn.Sequential(*layers)(x[b].T))
    expected = net.output(torch.cat(features, dim=1))
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 6, 7])
def test_the_first_class_needs_more_than_half_of_the_samples(size):
    net = create("binned-fcnn", n_points=2 * max(size, 2), n_classes=2, bins=2).eval()
    net.bins.size = size
    for second in range(size + 1):
        z = torch.full((size, 1), -1.0)
        z[:second] = 1.0
        net.bins.forward = lambda _: None
        net.samples.forward = lambda _, z=z: z
        found = eager(net, np.zeros((1, 4), np.float32)).argmax()
        assert (found == 0) == (size - second > size // 2)


def test_several_classes_vote():
    net = create("binned-fcnn", n_points=8, n_classes=3, bins=2).eval()
    net.samples.forward = lambda _: torch.eye(3)[[0, 1, 1, 2, 2, 2, 2, 0]]
    logits = net(torch.zeros(2, 8))
    expected = np.log([[2, 3, 2], [2, 1, 4]])
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_what_ends_the_recipe_of_the_thesis(outputs):
    label = torch.tensor([0, 1] * 100)
    share = torch.eye(max(outputs, 2))[label]
    right = torch.eye(3)[label] if outputs == 3 else label[:, None] - 0.5
    wrong = right.flip(0)
    assert binned_fcnn.good_enough(0.149, wrong, share)
    assert not binned_fcnn.good_enough(0.15, wrong, share)
    assert binned_fcnn.good_enough(9.0, right, share)
    almost = right.clone()
    almost[:2] = wrong[:2]
    assert not binned_fcnn.good_enough(9.0, almost, share)  # 0.99 is not above 0.99


def test_settled_statistics_are_those_of_all_samples():
    torch.manual_seed(0)
    net = binned_fcnn.Samples(bins=2, n_classes=2)
    points = Points(
        3 + 2 * torch.randn(500, 2), torch.randn(2, 5), torch.eye(2)[torch.zeros(100).long()]
    )
    net(points.draw(16)[0])
    binned_fcnn.settle(net, points)
    every = net.hidden(points.take(torch.arange(500))[0]).flatten(0, 1)
    torch.testing.assert_close(
        net.hidden_norm.running_mean, every.mean(dim=1), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(net.hidden_norm.running_var, every.var(dim=1), rtol=1e-3, atol=1e-4)
    assert net.hidden_norm.momentum == 0.1


def test_a_pattern_does_not_depend_on_its_batch_once_trained():
    torch.manual_seed(0)
    net = create("binned-fcnn", n_points=160, n_classes=2, bins=4)
    patterns = torch.randn(9, 160)
    net(patterns)
    net.eval()
    alone = torch.cat([net(row[None]) for row in patterns])
    torch.testing.assert_close(net(patterns), alone, atol=1e-5, rtol=1e-5)
