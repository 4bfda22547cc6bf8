"""What the weights alone say, without a pattern and without a gradient.

first layer     rows of the first matrix, times the gain of a normalisation before it: what each
                hidden unit looks for along the axis
composed        the product of all matrices of a fully connected network, rectifiers left out.
                With W the matrices, g the gains of its layer normalisations and
                P = 1 - 11^T / n the subtraction of the mean that each begins with:
                W_L diag(g_L) P_L ... W_1 diag(g_1) P_1. It is the network's gradient up to
                positive factors if every rectifier were open: a first look, no attribution.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class WeightMap:
    """Weights over the axis.

    Attributes
    ----------
    rows
        (units, n_points), of the first layer; strongest push to the second class first, if known.
    push
        (n_classes, units): composed weight from each unit to the score of each class, or None.
    composed
        (n_classes, n_points), or None for a network that is not fully connected.
    """

    rows: Float32
    push: Float32 | None = None
    composed: Float32 | None = None


def weight_map(net: nn.Module, *, n_points: int, n_classes: int) -> WeightMap | None:
    """Return the weights over the axis, or None where no matrix meets the axis itself.

    Of two classes with one logit the first has the negative weights of the second; of more, each
    has its own less their mean, since only differences of logits count.
    """
    layers = [layer for layer in net.modules() if not list(layer.children())]
    at = next(
        (
            i
            for i, layer in enumerate(layers)
            if isinstance(layer, nn.Linear) and layer.in_features == n_points
        ),
        None,
    )
    if at is None:
        return None
    rows = _double(layers[at].weight)
    before = layers[at - 1] if at else None
    if isinstance(before, nn.LayerNorm) and before.normalized_shape == (n_points,):
        rows = rows * _double(before.weight)
        rows = rows - rows.mean(dim=1, keepdim=True)
    if not (type(net) is nn.Sequential and all(map(_simple, layers))):
        return WeightMap(rows.float().numpy())
    rest = torch.eye(rows.shape[0], dtype=torch.float64)
    for layer in layers[at + 1 :]:
        if not isinstance(layer, nn.ReLU):
            rest = _matrix(layer) @ rest
    push = torch.cat([-rest, rest]) if len(rest) == 1 else rest - rest.mean(dim=0)
    assert len(push) == n_classes
    order = torch.argsort(push[1], descending=True)
    return WeightMap(
        rows[order].float().numpy(), push[:, order].float().numpy(), (push @ rows).float().numpy()
    )


def _simple(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.LayerNorm | nn.ReLU)


def _matrix(layer: nn.Module) -> torch.Tensor:
    """Return the matrix of a linear layer, or of a layer normalisation up to its scale."""
    weight = _double(layer.weight)
    if isinstance(layer, nn.Linear):
        return weight
    return weight[:, None] * (torch.eye(len(weight), dtype=torch.float64) - 1 / len(weight))


def _double(parameter: object) -> torch.Tensor:
    assert isinstance(parameter, torch.Tensor)
    return parameter.detach().double()
