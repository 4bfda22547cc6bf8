"""Importance of every point of one pattern, or of a window of patterns, for every class.

x is the input, b a baseline of the same shape, s_k the log-odds of class k (`scores`):

    gradient            ds_k / dx_j                                        per unit of intensity
    input x gradient    x_j ds_k / dx_j                                    in log-odds
    integrated          (x_j - b_j) integral_0^1 ds_k / dx_j (b + a (x - b)) da    in log-odds

Integrated gradients (Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365) are complete: their
sum over j is s_k(x) - s_k(b). The integral is a Gauss-Legendre sum; `Integrated.gap` is what it
misses: with 32 points at worst 2 % of the mean rise for a CNN and 10 % for an FCNN, on 150 patterns
of a simulated run; midpoints miss about twice as much.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.explain.scores import log_odds

BATCH = 32  # patterns in a forward pass


@dataclass(frozen=True, slots=True, eq=False)
class Integrated:
    """Integrated gradients of one input.

    Attributes
    ----------
    importance
        (n_classes, ...) as x, in log-odds.
    rise
        (n_classes,), s(x) - s(b).
    gap
        (n_classes,), the sum of `importance` less `rise`.
    """

    importance: torch.Tensor
    rise: torch.Tensor
    gap: torch.Tensor


def gradient(net: nn.Module, inputs: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Return ds_k / dx, (n_classes, ...) as `inputs`.

    Parameters
    ----------
    net
        In evaluation mode.
    inputs
        (n, n_points), or (n, t, n_points) for a network with context.

    Raises
    ------
    ModelError
        The output does not depend on the input by a path that can be differentiated.
    """
    x = inputs.detach().clone().requires_grad_()
    scores = log_odds(net(x), temperature=temperature)
    if not scores.requires_grad:
        raise ModelError("the network votes: its output has no gradient with respect to a pattern")
    n_classes = scores.shape[1]
    if n_classes == 2:  # s_0 = -s_1
        second = _backward(scores[:, 1], x, keep=False)
        return torch.stack([-second, second])
    return torch.stack([_backward(scores[:, k], x, keep=True) for k in range(n_classes)])


def integrated(
    net: nn.Module,
    given: torch.Tensor,
    baseline: torch.Tensor,
    *,
    steps: int,
    temperature: float = 1.0,
) -> Integrated:
    """Return the integrated gradients of one input (n_points,) or (t, n_points).

    Parameters
    ----------
    baseline
        As `given`. A network that begins by normalising each pattern sees the same along the whole
        way from zero, so that zero is no baseline for it.
    steps
        Points between baseline and input at which the gradient is taken.
    """
    away = given - baseline
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on -1 .. 1, of sum 2
    each = (-1, *[1] * given.ndim)
    share = torch.from_numpy((nodes + 1) / 2).to(given.dtype).reshape(each)
    weight = torch.from_numpy(weights / 2).reshape(each)
    at_once = max(1, BATCH // (1 if given.ndim == 1 else len(given)))
    total = torch.zeros((), dtype=torch.float64)
    for a, w in zip(share.split(at_once), weight.split(at_once), strict=True):
        found = gradient(net, baseline + a * away, temperature=temperature)
        total = total + (w * found.double()).sum(dim=1)
    importance = total * away
    with torch.no_grad():
        ends = log_odds(net(torch.stack([baseline, given])).double(), temperature=temperature)
    rise = ends[1] - ends[0]
    gap = importance.flatten(1).sum(dim=1) - rise
    return Integrated(importance.float(), rise, gap)


def _backward(score: torch.Tensor, x: torch.Tensor, *, keep: bool) -> torch.Tensor:
    (found,) = torch.autograd.grad(score.sum(), x, retain_graph=keep, allow_unused=True)
    if found is None:
        raise ModelError("the network votes: its output has no gradient with respect to a pattern")
    return found
