"""What the networks with temporal context share.

Such a network has an int attribute ``context`` c and sees the last t <= c + 1 patterns of a series,
a window, of which it classifies the last one: ``embed`` maps each pattern by itself to E features,
``follow`` a window of features to logits. A window holds no later pattern, so predictions are
causal whatever happens inside it; at the start of a series it holds what there is.

A pattern's position is its age: 0 for the last one of a window, 1 for the one before. The last
pattern has the same position in a short and in a long window, of a live and of an archived run.
"""

import math

import torch
from torch import nn

from phasewatch.models.errors import ModelError


def check_context(name: str, context: int) -> int:
    """Return `context` if it is a whole number of at least 1; else raise ModelError."""
    if type(context) is not int or context < 1:
        raise ModelError(
            f"{name}: context={context!r}: a whole number of earlier patterns, at least 1"
        )
    return context


def check_window(windows: torch.Tensor, context: int) -> int:
    """Return the number of patterns t of `windows` (n, t, ...); ModelError if they do not fit."""
    if windows.ndim != 3 or not 1 <= windows.shape[1] <= context + 1:
        raise ModelError(
            f"windows: shape {tuple(windows.shape)}, not (n, t, features) with t from 1 to "
            f"{context + 1}"
        )
    return windows.shape[1]


def positions(length: int, width: int) -> torch.Tensor:
    """Return the sinusoidal code (length, width) of ages length - 1 to 0; width is even.

        code[a, 2i] = sin(a / 10000^(2i / width)),   code[a, 2i + 1] = cos(a / 10000^(2i / width))

    The last t rows are those of a window of t patterns (Vaswani et al. 2017, arXiv:1706.03762).
    """
    age = torch.arange(length - 1, -1, -1, dtype=torch.float64)[:, None]
    rate = torch.exp(-math.log(10000) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([torch.sin(age * rate), torch.cos(age * rate)], dim=2).flatten(1).float()


def embedding(n_points: int, width: int) -> nn.Sequential:
    """Make LayerNorm(N) -> Linear -> LayerNorm -> ReLU: patterns (n, N) to features (n, width).

    Weights are He's, biases 0.
    """
    linear = nn.Linear(n_points, width)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(n_points), linear, nn.LayerNorm(width), nn.ReLU())


def head(width: int, outputs: int) -> nn.Linear:
    """Make the last layer: Xavier's weights (uniform; Glorot and Bengio 2010), biases 0."""
    linear = nn.Linear(width, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
