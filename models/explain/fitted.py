"""What a network was fitted to by other means than a gradient: components, and weights of bins.

With C the principal axes (rows) and v the variance along them, the loadings are
l_cj = C_cj sqrt(v_c) and the contribution of point j is sum_c l_cj^2 / sum_cj l_cj^2.

Networks are known by what they hold: buffers ``components`` and ``variance``, or a module ``bins``
with the number ``bins`` and the ``size`` of its bins beside a buffer ``weight`` (bins,) or a last
linear layer over the votes of the bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Principal components.

    Attributes
    ----------
    loadings
        (n_components, n_points), in units of intensity.
    contributions
        (n_points,), of sum 1.
    """

    loadings: Float32
    contributions: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Bins of a binned network.

    Attributes
    ----------
    first
        (n_bins + 1,) first point of each, and the point after the last.
    weight
        (n_bins,) not negative: of each bin's vote.
    """

    first: NDArray[np.int64]
    weight: Float32


def components(net: nn.Module) -> Components | None:
    """Return loadings and contributions, or None for a network without components."""
    held = dict(net.named_buffers())
    if not {"components", "variance"} <= set(held):
        return None
    axes, variance = (held[name].cpu().double().numpy() for name in ("components", "variance"))
    loadings = axes * np.sqrt(variance)[:, None]
    squares = (loadings**2).sum(axis=0)
    return Components(loadings.astype(np.float32), (squares / squares.sum()).astype(np.float32))


def bins(net: nn.Module) -> Bins | None:
    """Return the weights of a binned network's bins, or None for another network.

    Where a linear layer joins the votes, (bins, outputs of a bin) one after the other, the weight
    of a bin is the norm of its part, over all votes and logits.
    """
    cut = getattr(net, "bins", None)
    if not isinstance(cut, nn.Module) or not hasattr(cut, "size"):
        return None
    n, size = (int(getattr(cut, name)) for name in ("bins", "size"))
    held = dict(net.named_buffers())
    if "weight" in held:
        weight = held["weight"]
    else:
        linear = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        if not linear or linear[-1].in_features % n:
            return None
        weight = linear[-1].weight.detach().unflatten(1, (n, -1)).square().sum(dim=(0, 2)).sqrt()
    return Bins(np.arange(n + 1, dtype=np.int64) * size, weight.cpu().float().numpy())
