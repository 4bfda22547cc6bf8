"""The published checkpoints' names and shapes map onto our networks, one to one."""

import re

import numpy as np
import pytest
import torch

from phasewatch.models import ModelError, create
from phasewatch.models.published import CNN, CONV_SC, FEED_FORWARD, network


def norm(name, width):
    """Return names and shapes of a batch normalisation."""
    shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{k}": v for k, v in {**shapes, "num_batches_tracked": ()}.items()}


def cnn(features):
    return {
        "LayerNorm.weight": (4023,),
        "LayerNorm.bias": (4023,),
        "conv1.0.weight": (64, 1, 5),
        "conv1.0.bias": (64,),
        **norm("conv1.1", 64),
        "conv2.0.weight": (64, 64, 3),
        "conv2.0.bias": (64,),
        **norm("conv2.1", 64),
        "conv3.0.weight": (4, 64, 3),
        "conv3.0.bias": (4,),
        **norm("conv3.1", 4),
        "fc1.0.weight": (features,),
        "fc1.0.bias": (features,),
        "fc1.1.weight": (1, features),
        "fc1.1.bias": (1,),
    }


SC = {
    "conv1.0.weight": (64, 1, 5),
    "conv1.0.bias": (64,),
    **norm("conv1.1", 64),
    "conv3.0.weight": (8, 64, 5),
    "conv3.0.bias": (8,),
    **norm("conv3.1", 8),
    "dec_conv3.0.weight": (1, 8, 1),
    "dec_conv3.0.bias": (1,),
    **norm("dec_conv3.1", 1),
    "embeding.0.weight": (256, 500),
    "embeding.0.bias": (256,),
    "embeding.1.weight": (256,),
    "embeding.1.bias": (256,),
    "MultiHeadAttention.in_proj_weight": (24, 8),
    "MultiHeadAttention.in_proj_bias": (24,),
    "MultiHeadAttention.out_proj.weight": (8, 8),
    "MultiHeadAttention.out_proj.bias": (8,),
    "C_Attention_F.gamma": (1,),
    "LayerNorm.weight": (256,),
    "LayerNorm.bias": (256,),
    "fc1.0.weight": (1, 256),
    "fc1.0.bias": (1,),
    "linear1.weight": (1024, 256),
    "linear1.bias": (1024,),
    "linear2.weight": (256, 1024),
    "linear2.bias": (256,),
    "norm1.weight": (256,),
    "norm1.bias": (256,),
    "norm2.weight": (256,),
    "norm2.bias": (256,),
}


def filled(shapes):
    rng = np.random.default_rng(0)
    state = {k: (0.05 * rng.normal(size=s)).astype(np.float32) for k, s in shapes.items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] = np.ones_like(state[name])
        elif name.endswith("num_batches_tracked"):
            state[name] = np.array(5)
    return state


CASES = {
    "cnn": (cnn(496), CNN, {}, "cnn", {}, 23_307),
    "cnn, pool 3": (cnn(328), CNN, {}, "cnn", {"pools": (2, 3, 2)}, 22_803),
    "conv-sc": (SC, CONV_SC | FEED_FORWARD, {"feed_forward": True}, "conv-sc", {}, 659_525),
}


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes(case):
    shapes, table, how, name, options, expected = CASES[case]
    state = filled(shapes)
    net = network(state, **how)
    own = net.state_dict()
    assert sum(p.numel() for p in net.parameters()) == expected
    seen = set()
    for theirs, array in state.items():
        (prefix,) = (p for p in table if theirs.startswith(f"{p}."))
        ours = table[prefix] + theirs.removeprefix(prefix)
        assert tuple(own[ours].shape) == array.shape
        assert np.array_equal(own[ours].numpy(), array)
        seen.add(ours)
    assert seen == set(own)
    fresh = create(name, n_points=4023, n_classes=2, **options)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {
        k: v.shape for k, v in own.items()
    }
    assert net(torch.rand(2, 4023)).isfinite().all()


def by_hand(state, x):
    """The published Conv SC in evaluation mode, from its description; the feed-forward unused."""
    w = {k: torch.as_tensor(v) for k, v in state.items()}
    f = torch.nn.functional

    def conv(x, name, stride):
        x = f.conv1d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], stride=stride)
        parts = (w[f"{name}.1.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return torch.relu(f.batch_norm(x, *parts))

    x = f.max_pool1d(conv(x[:, None], "conv1", 2), 2)
    x = f.max_pool1d(conv(x, "conv3", 1), 2)
    x = f.linear(x, w["embeding.0.weight"], w["embeding.0.bias"])
    x = f.layer_norm(x, (256,), w["embeding.1.weight"], w["embeding.1.bias"])
    tokens = x.transpose(1, 2)
    mha = "MultiHeadAttention"
    qkv = f.linear(tokens, w[f"{mha}.in_proj_weight"], w[f"{mha}.in_proj_bias"])
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in qkv.chunk(3, dim=2))
    mixed = torch.softmax(q @ k.transpose(2, 3) / 2, dim=3) @ v
    mixed = mixed.transpose(1, 2).flatten(2)
    spatial = f.linear(mixed, w[f"{mha}.out_proj.weight"], w[f"{mha}.out_proj.bias"])
    energy = x @ x.transpose(1, 2)
    attention = torch.softmax(energy.max(dim=2, keepdim=True).values - energy, dim=2)
    channel = w["C_Attention_F.gamma"] * (attention @ x) + x
    h = f.layer_norm(
        x + spatial.transpose(1, 2) + channel, (256,), w["LayerNorm.weight"], w["LayerNorm.bias"]
    )
    return f.linear(conv(h, "dec_conv3", 1).flatten(1), w["fc1.0.weight"], w["fc1.0.bias"])


def test_conv_sc_computes_what_the_published_one_does():
    state = filled(SC)
    net, x = network(state), 5 * torch.rand(3, 4023)
    assert sum(p.numel() for p in net.parameters()) == 132_933
    logits = net(x).detach()
    torch.testing.assert_close(logits, by_hand(state, x), rtol=1e-4, atol=1e-5)
    assert logits.std() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.0.weight": np.zeros((64, 1, 7))}, "conv1.0.weight: (64, 1, 7), not (64, 1, 5)"),
        ({"extra.weight": np.zeros(3)}, "tensor extra.weight is not known"),
        ({"conv3.1.scale": np.zeros(3)}, "conv3.1.scale: (3,), not known"),
        ({"fc1.1.bias": None}, "nothing for our tensor 16.bias"),
    ],
)
def test_what_does_not_fit(change, message):
    state = {k: v for k, v in {**filled(cnn(328)), **change}.items() if v is not None}
    with pytest.raises(ModelError, match=re.escape(message)):
        network(state)
    with pytest.raises(ModelError, match="nothing for our tensor"):
        network({})
