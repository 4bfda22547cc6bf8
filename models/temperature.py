"""The temperature T by which logits are divided so that probabilities are honest.

T minimises the cross entropy of patterns that were not trained on (Guo et al., ICML 2017,
arXiv:1706.04599), as given by the weights that saw none of them. Where all of them are classified
rightly that has no minimum: T would fall to 0 and every probability rise to 1. So T lies within
`BOUNDS`, of which the lower is 1: a few patterns that are all right do not show that the network is
surer than it says.
"""

import numpy as np
import torch

from phasewatch.models.losses import divergence

BOUNDS = (1.0, 10.0)
STEPS = 40  # of the golden section; 1e-8 of the interval


def fit_temperature(
    logits: torch.Tensor, share: torch.Tensor, weight: torch.Tensor | None = None
) -> float:
    """Return the T in `BOUNDS` with the least cross entropy.

    Parameters
    ----------
    logits, share, weight
        As `phasewatch.models.losses.divergence` takes them; of held-out patterns.
    """
    z = logits.double()
    w = None if weight is None else weight.double()

    def loss(log_t: float) -> float:
        return float(divergence(z / np.exp(log_t), share, w))

    # Golden section over log T. The cross entropy is convex in 1/T, so that it has one minimum.
    low, high = np.log(BOUNDS)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(STEPS):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) <= loss(b) else (a, high)
    return float(np.exp(low if loss(low) <= loss(high) else high).clip(*BOUNDS))
