"""Bins without a value, bridged by a straight line."""

import torch


def bridge(patterns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `patterns` (n, n_bins) with bins that are not finite bridged, and which are finite.

    An empty bin lies on the straight line between its neighbours and has the nearest value at an
    end, as in `phasewatch.calibration.baseline`. A pattern without a finite bin becomes zeros.
    """
    finite = patterns.isfinite()
    plain = torch.where(finite, patterns, 0.0)
    last = patterns.shape[1] - 1
    index = torch.arange(last + 1, device=patterns.device).expand_as(patterns)
    before = torch.where(finite, index, -1).cummax(dim=1).values
    after = torch.where(finite, index, last + 1).flip(1).cummin(dim=1).values.flip(1)
    left = torch.where(before < 0, after, before).clamp(0, last)
    right = torch.where(after > last, before, after).clamp(0, last)
    low, high = plain.gather(1, left), plain.gather(1, right)
    slope = (high - low) / (right - left).clamp(min=1)
    return torch.where(finite, plain, slope * (index - left) + low), finite
