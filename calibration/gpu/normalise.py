"""Brings patterns on a device to one scale, as `phasewatch.calibration.normalise` does."""

import torch

from phasewatch.calibration.errors import CalibrationError

METHODS = ("none", "minmax", "area")


def normalise(patterns: torch.Tensor, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `patterns` (n, n_bins) normalised, float32, and which could be, (n,) bool.

    ``minmax``: ``(y - min y) / (max y - min y)``; ``area``: ``y`` over its integral by trapezoids
    along bins that are 1 wide; ``none``: ``y``. Empty bins (NaN) are left out and stay NaN. A
    pattern that is constant, empty or of no positive area cannot be normalised; it is NaN.

    Raises
    ------
    CalibrationError
        The method is unknown.
    """
    if method not in METHODS:
        raise CalibrationError(f"normalise: {method!r} is unknown; known: {', '.join(METHODS)}")
    y = patterns.to(torch.float64)
    if method == "none":
        return y.float(), torch.ones(len(y), dtype=torch.bool, device=y.device)
    if method == "minmax":
        empty = y.isnan()
        low = y.masked_fill(empty, torch.inf).amin(dim=1, keepdim=True)
        scale = y.masked_fill(empty, -torch.inf).amax(dim=1, keepdim=True) - low
    else:
        low, scale = torch.zeros_like(y[:, :1]), _areas(y)
    possible = (scale > 0) & scale.isfinite()
    scaled = (y - low) / torch.where(possible, scale, torch.nan)
    return scaled.float(), possible.squeeze(1)


def _areas(y: torch.Tensor) -> torch.Tensor:
    """Return the integral (n, 1) of `y` (n, n_bins) over the bin number, between finite bins."""
    finite = y.isfinite()
    plain = torch.where(finite, y, 0.0)
    index = torch.arange(y.shape[1], device=y.device).expand_as(y)
    before = torch.where(finite, index, -1).cummax(dim=1).values[:, :-1]
    width = index[:, 1:] - before
    height = (plain[:, 1:] + plain.gather(1, before.clamp(min=0))) / 2
    return torch.where(finite[:, 1:] & (before >= 0), width * height, 0.0).sum(dim=1, keepdim=True)
