"""Attention maps of a series, from the networks that have a method ``attention``.

Averaged over heads. Row q of a map is what token q looks at and sums to 1:

    spatial    tokens are positions of the embedding: ``spatial`` (n_classes, L, L)
    channel    tokens are channels: ``channel`` (n_classes, C, C)
    temporal   tokens are the patterns of a window; only the row of the last one, the pattern that
               is classified, is kept: ``temporal`` (n, context + 1), NaN before the series began

Spatial and channel maps are means over the patterns given one label, NaN for a class without one.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models.threads import one_thread

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


def attention(
    net: nn.Module,
    patterns: Float32,
    label: NDArray[np.int64],
    *,
    n_classes: int,
    at: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> dict[str, Float32]:
    """Return the maps by name; empty for a network without attention.

    Parameters
    ----------
    net
        In evaluation mode.
    patterns
        (n, n_points), free of empty bins, in order.
    label
        Of the patterns `at`.
    at
        Positions of those to look at; default all.
    """
    maps = getattr(net, "attention", None)
    if maps is None:
        return {}
    at = np.arange(len(patterns)) if at is None else at
    context = int(getattr(net, "context", 0))
    whole = torch.from_numpy(np.ascontiguousarray(patterns, np.float32))
    sums: dict[str, NDArray[np.float64]] = {}
    last: dict[str, Float32] = {}
    with one_thread(), torch.no_grad():
        for done, (i, k) in enumerate(zip(at.tolist(), label.tolist(), strict=True)):
            given = whole[max(0, i - context) : i + 1] if context else whole[i]
            for name, found in maps(given[None]).items():
                one = found[0].mean(dim=0) if found.ndim == 4 else found[0]
                if name.startswith("temporal"):
                    rows = last.setdefault(
                        name, np.full((len(at), context + 1), np.nan, np.float32)
                    )
                    rows[done, context + 1 - len(given) :] = one[-1].numpy()
                else:
                    sums.setdefault(name, np.zeros((n_classes, *one.shape)))[k] += one.numpy()
            if progress is not None:
                progress(done + 1, len(at))
    count = np.bincount(label, minlength=n_classes).astype(np.float64)[:, None, None]
    count[count == 0] = np.nan
    return last | {name: (total / count).astype(np.float32) for name, total in sums.items()}
