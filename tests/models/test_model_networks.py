"""What each architecture promises beyond its size: causality, attention, a sane start."""

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError, create
from phasewatch.models.networks.resnet import Block
from phasewatch.models.networks.sequence import positions
from phasewatch.models.registry import names

SEQUENCES = ("lstm", "transformer", "conv-sct")
N = 120


def made(name, **options):
    torch.manual_seed(0)
    net = create(name, n_points=N, n_classes=3, **options)
    net.train()
    with torch.no_grad():  # statistics of a few batches
        for _ in range(3):
            x = torch.rand(16, 2, N)
            net(x if name in SEQUENCES else x[:, 0])
    return net.eval()


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("t", [1, 2, 6])
def test_forward_is_embed_and_follow(name, t):
    net = made(name, context=5)
    x = torch.rand(4, t, N)
    features = torch.stack([net.embed(window) for window in x])
    torch.testing.assert_close(net(x), net.follow(features))
    assert net.context == 5


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_past_matters_and_its_order(name):
    net = made(name, context=5)
    x = torch.rand(2, 6, N)
    alone, whole = net(x[:, -1:]), net(x)
    swapped = net(x[:, [1, 0, 2, 3, 4, 5]])
    assert (alone - whole).abs().max() > 1e-4
    assert (swapped - whole).abs().max() > 1e-6


@pytest.mark.parametrize("name", SEQUENCES)
def test_windows_that_do_not_fit(name):
    net = made(name, context=5)
    for bad in (torch.rand(2, 7, N), torch.rand(2, N), torch.rand(2, 0, N)):
        with pytest.raises(ModelError, match=r"windows: shape .* with t from 1 to 6"):
            net(bad)


def test_default_contexts():
    found = {name: getattr(create(name, n_points=N, n_classes=2), "context", 0) for name in names()}
    assert {k: c for k, c in found.items() if c} == {"lstm": 15, "transformer": 30, "conv-sct": 30}


def test_the_last_pattern_always_has_the_same_position():
    long, short = positions(31, 256), positions(4, 256)
    assert torch.equal(long[-4:], short)
    expected = torch.tensor([0.0, 1.0]).repeat(128)
    torch.testing.assert_close(short[-1], expected)
    torch.testing.assert_close(short[-2, :2], torch.tensor([np.sin(1.0), np.cos(1.0)]).float())
    assert torch.unique(long, dim=0).shape[0] == 31


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("conv-sc", {"spatial": (3, 2, 256, 256), "channel": (3, 8, 8)}),
        ("transformer", {"temporal": (3, 8, 4, 4), "temporal_first": (3, 8, 4, 4)}),
        (
            "conv-sct",
            {"temporal": (3, 8, 4, 4), "spatial": (3, 2, 256, 256), "channel": (3, 8, 8)},
        ),
    ],
)
def test_attention_maps(name, shapes):
    net = made(name)
    x = torch.rand(3, 4, N) if name in SEQUENCES else torch.rand(3, N)
    before = net(x)
    found = net.attention(x)
    assert {k: tuple(v.shape) for k, v in found.items()} == shapes
    for weights in found.values():
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    again = net.attention(x[1:2])
    for key, weights in found.items():
        torch.testing.assert_close(weights[1:2], again[key], rtol=1e-3, atol=1e-5)
    assert torch.equal(net(x), before)  # nothing is kept


def test_attention_maps_are_what_the_network_uses():
    """The temporal map of the last layer, applied by hand, gives the network's own result."""
    net = made("transformer", context=5)
    x = torch.rand(2, 6, N)
    weights = net.attention(x)["temporal"]
    features = net.embed(x.flatten(0, 1)).unflatten(0, (2, 6)) + net.positions[-6:]
    tokens, layer = net.first(features, last=6), net.second.temporal
    w, b = (part.chunk(3)[2] for part in (layer.in_proj_weight, layer.in_proj_bias))
    values = (tokens @ w.T + b).unflatten(2, (8, 32)).transpose(1, 2)
    mixed = layer.out_proj((weights @ values).transpose(1, 2).flatten(2))
    logits = net.head(net.second.feed_forward(tokens + mixed)[:, -1])
    torch.testing.assert_close(logits, net(x), rtol=1e-4, atol=1e-5)


def test_channels_look_at_those_unlike_them():
    net = made("conv-sc")
    fusion = net.branch.fusion
    assert fusion.gamma.item() == 0
    embedded = []
    fusion.embedding.register_forward_hook(lambda *call: embedded.append(call[-1]))
    weights = net.attention(torch.rand(2, N))["channel"]
    energy = embedded[0] @ embedded[0].transpose(1, 2)
    assert torch.equal(weights.argmax(dim=2), energy.argmin(dim=2))
    # the largest of a row is a channel's with itself, as the LayerNorm leaves all of one norm
    assert (energy.diagonal(dim1=1, dim2=2) >= energy.amax(dim=2) - 1e-3).all()


def test_gamma_learns_from_its_start():
    net = create("conv-sc", n_points=N, n_classes=2)
    net(torch.rand(8, N)).square().sum().backward()
    assert net.branch.fusion.gamma.grad.abs().item() > 0


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("length", [9, 10])
def test_paths_of_a_block_are_centred_alike(kernel, length):
    """With all weights on the middle of the kernels, both paths pick the same points."""
    block = Block(1, 1, kernel).eval()
    with torch.no_grad():
        for conv in (block.path[0], block.path[3]):
            conv.weight.zero_()
            conv.weight[..., kernel // 2] = 1
        block.shortcut[0].weight.fill_(1)
        x = torch.arange(1.0, length + 1)[None, None]
        torch.testing.assert_close(block(x), 2 * x[..., ::2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "lstm", "transformer", "conv-sc", "conv-sct"])
def test_a_fresh_network_tells_patterns_apart_and_is_not_sure(name):
    """Neither dead nor saturated: different patterns get different logits of moderate size."""
    net = made(name)
    x = torch.rand(32, 3, N)
    logits = net(x if name in SEQUENCES else x[:, 0])
    assert logits.std(dim=0).min() > 1e-3
    assert logits.abs().max() < 10


@pytest.mark.parametrize("name", ["resnet", "lstm", "transformer", "conv-sc", "conv-sct"])
def test_it_learns_two_kinds_of_pattern(name):
    torch.manual_seed(1)
    net = create(name, n_points=N, n_classes=2)
    label = torch.arange(32) % 2
    x = 0.1 * torch.rand(32, 3, N)
    x[label == 0, :, 30:36] += 1
    x[label == 1, :, 70:76] += 1
    x = x if name in SEQUENCES else x[:, 0]
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(12):
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], label.float())
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3
