"""Divergence of probabilities from shares, weighted by class."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def balanced(label: NDArray[np.int64], n_classes: int) -> torch.Tensor:
    """Return weights (n_classes,) with which every class in `label` (n,) counts alike."""
    count = np.bincount(label, minlength=n_classes)
    return torch.from_numpy((1 / np.maximum(count, 1)).astype(np.float32))


def divergence(
    logits: torch.Tensor, share: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``sum_i w_i D_i / sum_i w_i`` with ``D_i = sum_k s_ik log(s_ik / p_ik)``.

    D is the cross entropy less what no probabilities can go below; of whole patterns it is the
    cross entropy.

    Parameters
    ----------
    logits
        (n, 1) for two classes, else (n, n_classes).
    share
        (n, n_classes), s: how much of each class is in a pattern; sums to 1.
    weight
        (n_classes,); w_i = sum_k s_ik weight_k, or 1.
    """
    s = share.to(logits.dtype)
    z = torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
    each = (torch.xlogy(s, s) - s * nn.functional.log_softmax(z, dim=1)).sum(dim=1)
    if weight is None:
        return each.mean()
    w = s @ weight.to(s.dtype)
    return (w * each).sum() / w.sum()
