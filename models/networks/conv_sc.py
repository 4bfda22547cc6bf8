"""Convolutions with spatial and channel attention, Sun (2023), 5.2: 659,525 parameters at 4023.

    pattern less its mean, over its deviation
    -> Conv1d 1 -> 64, kernel 5, stride 2 -> BatchNorm -> ReLU -> MaxPool 2
    -> Conv1d 64 -> 8, kernel 5 -> BatchNorm -> ReLU -> MaxPool 2
    -> Linear to 256 and LayerNorm, per channel: X (C = 8, L = 256)
    -> LayerNorm(X + S(X) + K(X)) -> Conv1d 8 -> 1, kernel 1 -> BatchNorm -> ReLU
    -> FeedForward of hidden width 1024 -> Linear to the logits

S is attention of 2 heads over L tokens of C numbers, scaled by 1 / sqrt(d_k) (the thesis prints
1 / d_k; its code does this too). K is attention between channels,

    K(X) = X + gamma A X,    A = softmax over j of (max_j E_ij - E_ij),    E = X X^T (C, C)

as in the published code and in DANet's (Fu et al. 2019, arXiv:1809.02983), where eq. 5.4 has
softmax(E): a channel looks at those that are least like it. All rows of X have the same norm after
the LayerNorm, so E_ii = 256 is the largest of its row and softmax(E) is close to the identity: it
would add what X has already. gamma starts at 0, as published: the network begins without K and lets
it in as far as it helps; the gradient of gamma itself is not 0.

Published is neither the normalisation at the input, which has no parameters and without which a
run of another flux or noise was labelled by these (one of five seeds was 80 frames off on simulated
(Mg0.2Fe0.8)O), nor a feed-forward that is used: it is defined, but never called. Here both are
live. ``standardise=False`` and ``feed_forward=False`` leave them out, as the published weights
(`phasewatch.models.published`) were trained: 132,933 parameters.

Weights of convolutions, of the embedding and before a rectifier start as He's (normal, variance
2 / fan-in), the others as Xavier's, biases 0. The published ones start as N(0, 0.05).
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.networks.attention import FeedForward, attend, attention, maps
from phasewatch.models.networks.sequence import head
from phasewatch.models.registry import n_outputs

NOTE = "conv-sc: the feed-forward, which the published network counts but never uses, is live"
CHANNELS, WIDTH, HEADS, HIDDEN = 8, 256, 2, 1024
SHORTEST = 27  # points that leave one after the second convolution


def build(
    *, n_points: int, n_classes: int, feed_forward: bool = True, standardise: bool = True
) -> nn.Module:
    """Make the network: patterns (n, n_points) to logits (n, 1) or (n, n_classes)."""
    layers: list[tuple[str, nn.Module]] = [("branch", branch("conv-sc", n_points, standardise))]
    if feed_forward:
        layers.append(("feed_forward", FeedForward(WIDTH, HIDDEN)))
    layers.append(("head", head(WIDTH, n_outputs(n_classes))))
    return ConvSC(OrderedDict(layers))


class ConvSC(nn.Sequential):
    """See the module."""

    def attention(self, patterns: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what parts of patterns (n, n_points) look at; rows sum to 1.

        ``spatial`` (n, 2, 256, 256): positions of the embedding, which are not those of the
        pattern, since each is a weighted sum of all; ``channel`` (n, 8, 8): A above.
        """
        return branch_attention(cast(nn.Sequential, self.branch), patterns)


class Fusion(nn.Module):
    """Embedding, both attentions and the last convolution: (n, 8, length) to (n, 256)."""

    def __init__(self, length: int) -> None:
        super().__init__()
        linear, last = nn.Linear(length, WIDTH), nn.Conv1d(CHANNELS, 1, 1)
        he(linear)
        he(last)
        self.embedding = nn.Sequential(linear, nn.LayerNorm(WIDTH))
        self.spatial = attention(CHANNELS, HEADS)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.norm = nn.LayerNorm(WIDTH)
        self.conv3 = nn.Sequential(last, nn.BatchNorm1d(1), nn.ReLU())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return what is left of the channels."""
        x = self.embedding(features)
        tokens = x.transpose(1, 2)
        spatial = attend(self.spatial, tokens, tokens).transpose(1, 2)
        fused = 2 * x + spatial + self.gamma * (_unlike(x) @ x)
        return self.conv3(self.norm(fused))[:, 0]

    def attention(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return both attentions' weights."""
        x = self.embedding(features)
        return {"spatial": maps(self.spatial, x.transpose(1, 2)), "channel": _unlike(x)}


def branch(name: str, n_points: int, standardise: bool = True) -> nn.Sequential:
    """Make all up to the last convolution: patterns (n, n_points) to (n, 256), none negative."""
    if n_points < SHORTEST:
        raise ModelError(f"{name}: n_points={n_points} is too short; at least {SHORTEST}")
    length = (((n_points - 5) // 2 + 1) // 2 - 4) // 2

    def conv(width_in: int, width_out: int, stride: int) -> nn.Sequential:
        layer = nn.Conv1d(width_in, width_out, 5, stride=stride)
        he(layer)
        return nn.Sequential(layer, nn.BatchNorm1d(width_out), nn.ReLU(), nn.MaxPool1d(2))

    norm = {"norm": nn.LayerNorm(n_points, elementwise_affine=False)} if standardise else {}
    return nn.Sequential(
        OrderedDict(
            **norm,
            unflatten=nn.Unflatten(1, (1, n_points)),
            conv1=conv(1, 64, 2),
            conv2=conv(64, CHANNELS, 1),
            fusion=Fusion(length),
        )
    )


def branch_attention(made: nn.Sequential, patterns: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the attention maps of a `branch` for patterns (n, n_points)."""
    return cast(Fusion, made.fusion).attention(made[:-1](patterns))


def he(layer: nn.Linear | nn.Conv1d) -> None:
    """Draw He's weights for `layer`, and set its biases to 0."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(cast(torch.Tensor, layer.bias))


def _unlike(x: torch.Tensor) -> torch.Tensor:
    """Return A (n, C, C) of X (n, C, L)."""
    energy = x @ x.transpose(1, 2)
    return torch.softmax(energy.amax(dim=2, keepdim=True) - energy, dim=2)
