"""The fully connected network of Sun (2023), table 5.1: 1,204,335 parameters at 4023 points.

    LayerNorm(N) -> [Linear -> LayerNorm -> ReLU] for N -> 256 -> 512 -> 64 -> Linear to the logits

The published code draws the weights of its linear layers from N(1, 0.02), with which the last
hidden layer dies for one class; here they are He's (normal, variance 2 / fan-in; He et al. 2015,
arXiv:1502.01852), biases 0.
"""

from itertools import pairwise

from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.registry import n_outputs

WIDTHS = (256, 512, 64)


def build(*, n_points: int, n_classes: int) -> nn.Module:
    """Make the network: patterns (n, n_points) to logits (n, 1) or (n, n_classes)."""
    if n_points < 2:
        raise ModelError(f"fcnn: a pattern of n_points={n_points} has no shape; at least 2")
    layers: list[nn.Module] = [nn.LayerNorm(n_points)]
    for width_in, width_out in pairwise((n_points, *WIDTHS)):
        layers += [nn.Linear(width_in, width_out), nn.LayerNorm(width_out), nn.ReLU()]
    layers.append(nn.Linear(WIDTHS[-1], n_outputs(n_classes)))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
