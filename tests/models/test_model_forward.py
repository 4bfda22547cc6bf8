"""The compiled forward pass against torch's, and against itself in other batches."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phasewatch.models import kernels
from phasewatch.models.forward import MOST, compiled
from phasewatch.models.predict import Predictor, probabilities
from phasewatch.models.registry import create


def lived_in(net: nn.Module, n_points: int) -> nn.Module:
    """Return `net` in evaluation mode with other statistics and weights than fresh ones."""
    generator = torch.Generator().manual_seed(7)
    net.train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        net(torch.rand((16, n_points), generator=generator))
    return net.eval()


def by_torch(net: nn.Module, patterns: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net(torch.from_numpy(patterns)).numpy()


@pytest.fixture(scope="module", params=("cnn", "fcnn"))
def network(request):
    """Return each architecture at 4023 points, its translation and its logits of 64 patterns."""
    torch.manual_seed(1)
    net = lived_in(create(request.param, n_points=4023, n_classes=3), 4023)
    patterns = np.random.default_rng(2).random((MOST, 4023), np.float32)
    forward = compiled(net, 4023)
    assert forward is not None
    return net, forward, patterns, forward(patterns)


def test_it_is_what_torch_gives(network):
    net, _, patterns, logits = network
    expected = by_torch(net, patterns)
    found, wanted = (probabilities(torch.from_numpy(z).double()) for z in (logits, expected))
    assert np.abs(found - wanted).max() < 1e-5
    assert np.array_equal(found.argmax(axis=1), wanted.argmax(axis=1))


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_same_bits_in_any_batch(network, data):
    _, forward, patterns, logits = network
    order = data.draw(st.lists(st.integers(0, MOST - 1), min_size=1, max_size=MOST + 6))
    assert np.array_equal(forward(patterns[order]), logits[order])


def test_each_alone_has_the_same_bits(network):
    _, forward, patterns, logits = network
    alone = [forward(patterns[i : i + 1])[0] for i in range(0, MOST, 9)]
    assert np.array_equal(alone, logits[::9])


def test_threads_do_not_disturb_each_other(network):
    _, forward, patterns, logits = network
    with ThreadPoolExecutor(4) as pool:
        for first, found in enumerate(pool.map(lambda i: forward(patterns[i:]), range(16))):
            assert np.array_equal(found, logits[first:])


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 150),
    depth=st.integers(1, kernels.CHUNK * 2 + 3),
    outputs=st.integers(1, 2 * kernels.WIDTH + 1),
    pool=st.integers(1, kernels.MOST_POOLED),
    overlap=st.booleans(),
    lowest=st.sampled_from([0.0, -np.inf]),
    n=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_product(rows, depth, outputs, pool, overlap, lowest, n, seed):
    rows = max(rows, pool)
    rng = np.random.default_rng(seed)
    step = (depth + 1) // 2 if overlap else depth
    item = (rows - 1) * step + depth
    x = rng.normal(size=(n, item)).astype(np.float32)
    w, b = rng.normal(size=(depth, outputs)), rng.normal(size=outputs)
    y = np.full(n * (rows // pool) * outputs + 1, 7, np.float32)
    kernels.product(
        x.reshape(-1), n, item, rows, step, *kernels.pack(w, b), outputs, pool, lowest, y
    )
    left = np.stack([x[:, p * step : p * step + depth] for p in range(rows)], axis=1)
    sums = left.astype(np.float64) @ w + b
    sums = sums[:, : rows // pool * pool].reshape(n, -1, pool, outputs).max(axis=2)
    assert y[-1] == 7  # nothing is written behind the end
    expected = np.maximum(sums, lowest).reshape(-1)
    np.testing.assert_allclose(y[:-1], expected, atol=1e-5 * np.sqrt(depth) + 1e-5)


def test_nan_and_infinity_come_through():
    w, b = kernels.pack(np.ones((1, 1)), np.zeros(1))
    x = np.array([np.nan, 1, 1, np.nan, -np.inf, -1, 2, np.inf], np.float32)
    y = np.empty(4, np.float32)
    kernels.product(x, 1, 0, 8, 1, w, b, 1, 2, 0.0, y)
    np.testing.assert_array_equal(y, [np.nan, np.nan, 0, np.inf])


STACKS = {
    "pool of 3, no bias": lambda: [
        nn.Unflatten(1, (1, 90)),
        nn.Conv1d(1, 5, 4, bias=False),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.MaxPool1d(3),
        nn.Flatten(),
        nn.Linear(145, 2),
    ],
    "no rectifier, no pool, stride": lambda: [
        nn.Unflatten(1, (1, 90)),
        nn.Conv1d(1, 40, 3, stride=3),
        nn.Conv1d(40, 3, 2),
        nn.Flatten(),
        nn.LayerNorm(87, elementwise_affine=False),
        nn.Linear(87, 4, bias=False),
        nn.BatchNorm1d(4),
    ],
    "one channel": lambda: [
        nn.LayerNorm(90),
        nn.ReLU(),
        nn.Unflatten(1, (1, 90)),
        nn.Conv1d(1, 1, 3),
        nn.Flatten(),
        nn.Linear(88, 70),
        nn.ReLU(),
    ],
}


@pytest.mark.parametrize("name", STACKS)
def test_layers(name):
    torch.manual_seed(3)
    net = lived_in(nn.Sequential(*STACKS[name]()), 90)
    patterns = np.random.default_rng(0).normal(size=(70, 90)).astype(np.float32)
    forward = compiled(net, 90)
    assert forward is not None
    logits = forward(patterns)
    np.testing.assert_allclose(logits, by_torch(net, patterns), atol=1e-5, rtol=1e-4)
    assert np.array_equal(forward(patterns[::-7].copy()), logits[::-7])
    assert forward(patterns[:0]).shape == (0, logits.shape[1])


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [nn.Unflatten(1, (1, 90))],
        [nn.Linear(90, 3), nn.Tanh()],
        [nn.Linear(90, 3), nn.MaxPool1d(2)],
        [nn.Linear(80, 3)],
        [nn.Unflatten(1, (2, 45)), nn.Flatten(), nn.Linear(90, 3)],
        [nn.Unflatten(1, (1, 90)), nn.Conv1d(1, 2, 3)],
        *(
            [nn.Unflatten(1, (1, 90)), *layers, nn.Flatten(), nn.Linear(4, 2)]
            for layers in (
                [nn.Conv1d(1, 2, 3, padding=1)],
                [nn.Conv1d(1, 2, 3, dilation=2)],
                [nn.Conv1d(1, 2, 3), nn.MaxPool1d(2, stride=1)],
                [nn.Conv1d(1, 2, 3), nn.MaxPool1d(3, padding=1)],
                [nn.Conv1d(1, 2, 3), nn.MaxPool1d(2, ceil_mode=True)],
                [nn.Conv1d(1, 2, 3), nn.MaxPool1d(7)],
                [nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2, track_running_stats=False)],
                [nn.Conv1d(1, 2, 3), nn.LayerNorm(88)],
            )
        ),
    ],
    ids=str,
)
def test_what_is_not_known_is_left_to_torch(layers):
    assert compiled(nn.Sequential(*layers).eval(), 90) is None


def test_a_network_that_is_not_known_is_run_by_torch_one_pattern_at_a_time(trained):
    net, card, novelty = trained
    patterns = np.random.default_rng(5).random((9, card.axis.n), np.float32)
    seen = []

    class Wrapped(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return net(x)

    found = Predictor(Wrapped(), card, novelty, device="cpu")(patterns)
    expected = Predictor(net, card, novelty, device="cpu")(patterns)
    assert seen == [1] * 9
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-5)
    assert np.array_equal(found.novelty, expected.novelty)
