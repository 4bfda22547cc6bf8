"""Patterns cut into bins of points, and what both binned networks do with them.

A pattern of N points is cut into B bins of ``size = N // B`` points each; up to B - 1 points at its
end are left out. A point is a pair (two theta, intensity). With our recipe each bin of a pattern
has its own mean and deviation taken out, and an intensity is the mean over `SMOOTH` points: a
network that sees one point at a time cannot take a mean itself, nor tell a weaker line from one
that goes.
Tensors are (B, features, points): the bins' networks are B matrix products at once.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn

from phasewatch.models.errors import ModelError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

HIDDEN = 150
BINS = 15  # of the published code; chapter 4 also shows 18
TOGETHER = 4  # patterns in one forward: 10 MB of hidden values at 4023 points
# Points. On five pairs of runs of (Mg0.2Fe0.8)O the boundary was 1 to 2 frames nearer than with 1;
# with 9 labels flickered around it in two of the five.
SMOOTH = 5
ROUNDING = 1e-6  # of the largest deviation of a pattern's bins: below it a bin is constant
LARGEST = 45.90664283740434  # corrected intensity of the published set, whose smallest is about 0


class Bins(nn.Module):
    """Patterns (n, N) to scaled points (B, 2, n * size), two theta first.

    With `standardise_bins` each bin of a pattern has its own mean and deviation taken out, else
    intensities are scaled as (v - centre) / spread; `smooth` is over how many points, an odd
    number, they are averaged before. `axis` (n_points,) is two theta as it was; with it, weights do
    not fit a card of another number of points, though the points left out at the end may be all
    that differs.
    """

    axis: Tensor
    position: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self, *, name: str, n_points: int, bins: int, standardise_bins: bool, smooth: int = 1
    ) -> None:
        super().__init__()
        if smooth < 1 or smooth % 2 == 0:
            raise ModelError(f"{name}: smooth={smooth}: an odd number of points")
        if not 1 <= bins <= n_points // 2:
            raise ModelError(
                f"{name}: bins={bins} for n_points={n_points}: 1 to {max(n_points // 2, 1)}, "
                f"so that each has 2 points"
            )
        self.bins, self.size = bins, n_points // bins
        self.standardise_bins, self.smooth = standardise_bins, smooth
        self.register_buffer("axis", torch.zeros(n_points, dtype=torch.float64))
        edge = math.sqrt(3)  # where a uniform distribution of unit variance ends
        self.register_buffer("position", torch.linspace(-edge, edge, self.size).repeat(bins, 1))
        self.register_buffer("centre", torch.zeros(1))
        self.register_buffer("spread", torch.ones(1))

    def forward(self, patterns: Tensor) -> Tensor:
        """Return the points (B, 2, n * size) of `patterns`."""
        x = self.scaled(patterns).transpose(0, 1).flatten(1)
        return torch.stack([self.position.repeat(1, len(patterns)), x], dim=1)

    def scaled(self, patterns: Tensor) -> Tensor:
        """Return the intensities (n, B, size) of `patterns`."""
        if self.smooth > 1:
            patterns = nn.functional.avg_pool1d(
                patterns.unsqueeze(1), self.smooth, 1, self.smooth // 2, count_include_pad=False
            )[:, 0]
        cut = patterns[:, : self.bins * self.size].reshape(-1, self.bins, self.size)
        if not self.standardise_bins:
            return (cut - self.centre) / self.spread
        deviation, mean = torch.std_mean(cut, dim=2, keepdim=True)
        least = ROUNDING * deviation.amax(dim=1, keepdim=True)
        return (cut - mean) / deviation.maximum(least).clamp(min=torch.finfo(torch.float32).tiny)

    def scale(self, axis: Float64) -> None:
        """Take zero mean and unit variance of two theta per bin."""
        self.axis.copy_(torch.tensor(axis))
        where = self._binned()
        where -= where.mean(dim=1, keepdim=True)
        self.position.copy_(where / where.std(dim=1, keepdim=True))

    def leave(self, series: Float32, axis: Float64) -> None:
        """Take two theta as it is, and intensities such that `series` reaches from 0 to 45.9."""
        lowest, largest = np.nanmin(series), np.nanmax(series)
        self.axis.copy_(torch.tensor(axis))
        self.position.copy_(self._binned())
        self.centre.fill_(float(lowest))
        self.spread.fill_(float(largest - lowest) / LARGEST)

    def _binned(self) -> Tensor:
        return self.axis[: self.bins * self.size].reshape(self.bins, self.size).clone()


class Grouped(nn.Module):
    """One linear layer per bin: (B, n_in, points) to (B, n_out, points)."""

    def __init__(self, bins: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)  # as torch's Linear
        self.weight = nn.Parameter(torch.empty(bins, n_out, n_in).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(bins, n_out, 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + b`` of each bin."""
        return torch.baddbmm(self.bias, self.weight, x)


def votes(soft: Tensor, hard: Tensor) -> Tensor:
    """Return the 0s and 1s of `hard`, through which gradients pass as through `soft`."""
    hard = hard.to(soft.dtype)
    return hard + (soft - soft.detach()) if soft.requires_grad else hard


class Level(nn.Module):
    """Logits z of curves to ``gain z + offset``: what the points of a curve must say for a class.

    Where points say little, a network gives most of them to one class, in every curve; how many
    more it gives to it in one curve than in another is then the message.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(1))
        self.register_buffer("offset", torch.zeros(outputs))

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits (n, outputs) of curves with the logits `z` (n, outputs)."""
        return self.gain * z + self.offset

    def fit(self, z: Tensor, share: Float32) -> None:
        """Set both by logistic regression, classes weighted alike.

        On m curves with logits `z` (m, outputs) and the `share` (m, n_classes) of each class in
        them; the penalty on gain and offset is that of one curve's weight, so that classes far
        apart do not make them infinite.
        """
        logits = z.double().numpy()
        mean, width = logits.mean(axis=0), max(float(logits.std()), 1e-6)
        unit = (logits - mean) / width
        of = share.astype(np.float64)
        weight = of @ (1 / of.sum(axis=0))
        weight /= weight.sum()

        def objective(free: Float64) -> tuple[float, Float64]:
            out = free[0] * unit + free[1:]
            if unit.shape[1] == 1:
                out = np.concatenate([np.zeros_like(out), out], axis=1)
            log = log_softmax(out, axis=1)
            loss = -weight @ (of * log).sum(axis=1) + free @ free / (2 * len(of))
            slope = (weight[:, None] * (np.exp(log) - of))[:, -unit.shape[1] :]
            gradient = np.concatenate([[(slope * unit).sum()], slope.sum(axis=0)])
            return float(loss), gradient + free / len(of)

        start = np.zeros(1 + unit.shape[1])
        gain, *offset = minimize(objective, start, jac=True, method="L-BFGS-B").x
        self.gain.fill_(gain / width)
        self.offset.copy_(torch.from_numpy(np.array(offset) - gain * mean / width))
