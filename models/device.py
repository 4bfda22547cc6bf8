"""What `gaps` and `novelty` do to patterns, for patterns that are already on a torch device."""

import numpy as np
import torch

from phasewatch.models.errors import ModelError
from phasewatch.models.gaps import LARGEST, fault
from phasewatch.models.novelty import Novelty


def bridge(patterns: torch.Tensor) -> torch.Tensor:
    """Return `patterns` (n, n_points) float32 with empty bins interpolated, as `gaps.bridge` does.

    Raises
    ------
    ModelError
        A pattern has a `phasewatch.models.gaps.fault`.
    """
    y = patterns.to(torch.float64)
    finite = y.isfinite()
    plain = torch.where(finite, y, 0.0)
    low = torch.where(finite, y, torch.inf).amin(dim=1)
    high = torch.where(finite, y, -torch.inf).amax(dim=1)
    good = (2 * finite.sum(dim=1) >= y.shape[1]) & (high > low)
    good &= plain.abs().amax(dim=1) <= LARGEST
    if bad := (~good).nonzero().flatten().tolist():
        raise ModelError(f"pattern {bad[0]}: {fault(patterns[bad[0]].float().cpu().numpy())}")
    last = y.shape[1] - 1
    index = torch.arange(last + 1, device=y.device).expand_as(y)
    before = torch.where(finite, index, -1).cummax(dim=1).values
    after = torch.where(finite, index, last + 1).flip(1).cummin(dim=1).values.flip(1)
    left = torch.where(before < 0, after, before)
    right = torch.where(after > last, before, after)
    start = plain.gather(1, left)
    slope = (plain.gather(1, right) - start) / (right - left).clamp(min=1)
    return torch.where(finite, plain, slope * (index - left) + start).float()


def novelty(statistics: Novelty, patterns: torch.Tensor) -> torch.Tensor:
    """Return the novelty (n,) float32 of `patterns` (n, n_points), free of empty bins.

    In double precision throughout: it differs from `Novelty` by rounding.
    """

    def there(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float64)).to(patterns.device)

    mean, axes, variance, limits = (there(a) for a in statistics.arrays().values())
    x = patterns.to(torch.float64)
    n, m = x.shape[1], len(mean)
    if m < n:
        edges = torch.arange(m + 1, device=x.device) * n // m
        sums = torch.nn.functional.pad(x.cumsum(dim=1), (1, 0))
        x = sums[:, edges].diff(dim=1) / edges.diff()
    x = x - x.mean(dim=1, keepdim=True)
    scale = x.square().mean(dim=1, keepdim=True).sqrt()
    x = x / torch.where(scale > 0, scale, 1.0) - mean
    t = x @ axes.T
    score = (t.square() / variance).sum(dim=1).sqrt()
    residual = (x - t @ axes).square().sum(dim=1).sqrt()
    return torch.maximum(score / limits[0], residual / limits[1]).float()
