"""Cross entropy of logits, weighted by class."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def balanced(label: NDArray[np.int64], n_classes: int) -> torch.Tensor:
    """Return weights (n_classes,) with which every class in `label` (n,) counts alike."""
    count = np.bincount(label, minlength=n_classes)
    return torch.from_numpy((1 / np.maximum(count, 1)).astype(np.float32))


def cross_entropy(
    logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``sum_i w_i H_i / sum_i w_i``, w_i the weight of pattern i's class (1 without).

    Parameters
    ----------
    logits
        (n, 1) for two classes, else (n, n_classes).
    label
        (n,) int64.
    weight
        (n_classes,).
    """
    if logits.shape[1] == 1:
        each = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], label.to(logits.dtype), reduction="none"
        )
    else:
        each = nn.functional.cross_entropy(logits, label, reduction="none")
    if weight is None:
        return each.mean()
    w = weight[label]
    return (w * each).sum() / w.sum()
