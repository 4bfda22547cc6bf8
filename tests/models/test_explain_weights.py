from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from phasewatch.models import create
from phasewatch.models.explain.attention import attention
from phasewatch.models.explain.fitted import bins, components
from phasewatch.models.explain.weights import weight_map


def test_composed_weights_are_the_product():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    found = weight_map(net, n_points=6, n_classes=2)
    product = (net[2].weight @ net[0].weight).detach().numpy()
    np.testing.assert_allclose(found.composed, np.concatenate([-product, product]), rtol=1e-5)
    assert (np.diff(found.push[1]) <= 0).all()
    np.testing.assert_allclose(found.push[1] @ found.rows, product[0], rtol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_layer_normalisation_takes_a_constant_out(n_classes):
    net = create("fcnn", n_points=50, n_classes=n_classes)
    with torch.no_grad():
        net[0].weight.copy_(torch.linspace(0.5, 2, 50))
    found = weight_map(net, n_points=50, n_classes=n_classes)
    assert found.rows.shape == (256, 50)
    assert found.composed.shape == (n_classes, 50)
    np.testing.assert_allclose(found.composed.sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(found.composed.sum(axis=0), 0, atol=1e-4)
    gain = net[0].weight.detach().double()
    rows = net[1].weight.detach().double() * gain
    wanted = rows - rows.mean(dim=1, keepdim=True)
    np.testing.assert_allclose(np.sort(found.rows[:, 0]), np.sort(wanted[:, 0]), atol=1e-6)


def test_other_networks():
    lstm = create("lstm", n_points=80, n_classes=2)
    found = weight_map(lstm, n_points=80, n_classes=2)
    assert found.rows.shape == (512, 80)
    assert found.composed is None
    assert weight_map(create("cnn", n_points=80, n_classes=2), n_points=80, n_classes=2) is None


def test_loadings_and_contributions():
    net = nn.Module()
    net.register_buffer("components", torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]))
    net.register_buffer("variance", torch.tensor([4.0, 1.0]))
    found = components(net)
    np.testing.assert_allclose(found.loadings, [[1.2, 1.6, 0], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(found.contributions, [1.44 / 5, 2.56 / 5, 0.2], rtol=1e-6)
    assert components(nn.Linear(2, 1)) is None


def test_weights_of_bins():
    net = nn.Module()
    net.bins = nn.Module()
    net.bins.bins, net.bins.size = 3, 10
    net.register_buffer("weight", torch.tensor([0.0, 0.5, 1.0]))
    found = bins(net)
    np.testing.assert_array_equal(found.first, [0, 10, 20, 30])
    np.testing.assert_array_equal(found.weight, [0.0, 0.5, 1.0])
    assert bins(SimpleNamespace(bins=3)) is None
    joined = nn.Module()
    joined.bins, joined.last = net.bins, nn.Linear(6, 1)
    with torch.no_grad():
        joined.last.weight.copy_(torch.tensor([[3.0, -4.0, 0.0, 1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(bins(joined).weight, [5.0, 1.0, 0.0])


@pytest.mark.parametrize("name", ["conv-sc", "conv-sct", "transformer", "cnn"])
def test_attention(name):
    torch.manual_seed(0)
    options = {} if name in {"conv-sc", "cnn"} else {"context": 3}
    net = create(name, n_points=80, n_classes=3, **options).eval()
    patterns = np.random.default_rng(0).random((6, 80), np.float32)
    label = np.array([0, 1, 1])
    found = attention(net, patterns, label, n_classes=3, at=np.array([0, 2, 5]))
    shapes = {name: values.shape for name, values in found.items()}
    square = {"spatial": (3, 256, 256), "channel": (3, 8, 8)}
    assert (
        shapes
        == {
            "cnn": {},
            "conv-sc": square,
            "conv-sct": square | {"temporal": (3, 4)},
            "transformer": {"temporal": (3, 4), "temporal_first": (3, 4)},
        }[name]
    )
    for values in found.values():
        if values.ndim == 3:
            np.testing.assert_allclose(values[:2].sum(axis=2), 1, rtol=1e-5)
            assert np.isnan(values[2]).all()
        else:
            np.testing.assert_allclose(np.nansum(values, axis=1), 1, rtol=1e-5)
            assert np.isnan(values).sum(axis=1).tolist() == [3, 1, 0]
