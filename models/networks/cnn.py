"""The convolutional network of Sun (2023), table 5.1: 23,307 parameters at 4023 points.

    LayerNorm(N) -> three blocks of [Conv1d without padding -> BatchNorm -> ReLU -> MaxPool]
    -> flatten to F -> LayerNorm(F) -> Linear to the logits

with (channels, kernel, stride) = (64, 5, 2), (64, 3, 2), (4, 3, 1); F = 496 at 4023 points. Each
pools over 2 points; the published weights (`phasewatch.models.published`) over 3 in the second
block, ``pools=(2, 3, 2)``: 22,803 parameters. Weights of convolutions and of the last layer start
as N(0, 0.05), as published. The published predictions were made with BatchNorm in training mode,
which makes them depend on the batch; here they are not.
"""

from collections.abc import Sequence

from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.registry import n_outputs

BLOCKS = ((64, 5, 2), (64, 3, 2), (4, 3, 1))


def build(*, n_points: int, n_classes: int, pools: Sequence[int] = (2, 2, 2)) -> nn.Module:
    """Make the network: patterns (n, n_points) to logits (n, 1) or (n, n_classes)."""
    if len(pools) != len(BLOCKS) or any(type(p) is not int or p < 1 for p in pools):
        raise ModelError(f"cnn: pools={pools!r}: {len(BLOCKS)} whole numbers, at least 1")
    if n_points < (shortest := _shortest(pools)):
        raise ModelError(f"cnn: n_points={n_points} is too short; at least {shortest}")
    layers: list[nn.Module] = [nn.LayerNorm(n_points), nn.Unflatten(1, (1, n_points))]
    channels, length = 1, n_points
    for (width, kernel, stride), pool in zip(BLOCKS, pools, strict=True):
        layers += [
            nn.Conv1d(channels, width, kernel, stride=stride),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(pool),
        ]
        channels, length = width, ((length - kernel) // stride + 1) // pool
    features = channels * length
    layers += [nn.Flatten(), nn.LayerNorm(features), nn.Linear(features, n_outputs(n_classes))]
    for layer in layers:
        if isinstance(layer, nn.Conv1d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.05)
    return nn.Sequential(*layers)


def _shortest(pools: Sequence[int]) -> int:
    """Return the number of points that leaves one after the last block."""
    length = 1
    for (_, kernel, stride), pool in reversed(list(zip(BLOCKS, pools, strict=True))):
        length = (length * pool - 1) * stride + kernel
    return length
