"""Patterns cut into bins of points, and what both binned networks do with them.

A pattern of N points is cut into B bins of ``size = N // B`` points each; up to B - 1 points at its
end are left out. A point is a pair (two theta, intensity), scaled per bin as (v - centre) / spread.
Tensors are (B, features, points): the bins' networks are B matrix products at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn

from phasewatch.models.augment import replicate
from phasewatch.models.errors import ModelError
from phasewatch.models.mixing import mix

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Progress = Callable[[int, int, float], None]

HIDDEN = 150
BINS = 15  # of the published code; chapter 4 also shows 18
TOGETHER = 4  # patterns in one forward: 10 MB of hidden values at 4023 points
HELD_OUT = 4  # replicas of each labelled pattern
LOOK = 2048  # held-out points of each bin that the loss is taken of
GAIN = 1e-3  # of the loss; less does not count as falling

# Points of each bin in one step. 128 of 15 bins keep the hidden values within 1.2 MB, a
# second-level cache: 2 ms a step. 1024 take 20 ms or more.
DRAWN = 128
EPOCH = 40  # steps

# Replicas for networks that see one point at a time have a quarter of the recipe's shift, stretch
# and warp: a point has no neighbours by which to know a peak that has moved or grown.
MILDER = 4
MORE = 4  # times the recipe's replicas; points are drawn from them, so they cost memory only

LARGEST = 45.90664283740434  # corrected intensity of the published set, whose smallest is about 0


class Bins(nn.Module):
    """Patterns (n, N) to scaled points (B, 2, n * size), two theta first.

    With `standardise` a pattern's own mean and deviation are taken out first. `axis` (n_points,)
    is two theta as it was; with it, weights do not fit a card of another number of points, though
    the points left out at the end may be all that differs.
    """

    axis: Tensor
    position: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, *, name: str, n_points: int, bins: int, standardise: bool) -> None:
        super().__init__()
        if not 1 <= bins <= n_points // 2:
            raise ModelError(
                f"{name}: bins={bins} for n_points={n_points}: 1 to {max(n_points // 2, 1)}, "
                f"so that each has 2 points"
            )
        self.bins, self.size, self.standardise = bins, n_points // bins, standardise
        self.register_buffer("axis", torch.zeros(n_points, dtype=torch.float64))
        edge = math.sqrt(3)  # where a uniform distribution of unit variance ends
        self.register_buffer("position", torch.linspace(-edge, edge, self.size).repeat(bins, 1))
        self.register_buffer("centre", torch.zeros(bins, 1))
        self.register_buffer("spread", torch.ones(bins, 1))

    def forward(self, patterns: Tensor) -> Tensor:
        """Return the points (B, 2, n * size) of `patterns`."""
        x = self.scaled(patterns).transpose(0, 1).flatten(1)
        return torch.stack([self.position.repeat(1, len(patterns)), x], dim=1)

    def scaled(self, patterns: Tensor) -> Tensor:
        """Return the intensities (n, B, size) of `patterns`."""
        return (self._cut(patterns) - self.centre) / self.spread

    def scale(self, patterns: Float32, axis: Float64) -> None:
        """Take zero mean and unit variance per bin, of two theta and of `patterns`' intensity."""
        self.axis.copy_(torch.tensor(axis))
        where = self._binned()
        where -= where.mean(dim=1, keepdim=True)
        self.position.copy_(where / where.std(dim=1, keepdim=True))
        x = self._cut(torch.from_numpy(patterns)).double()
        self.centre.copy_(x.mean(dim=(0, 2)).unsqueeze(1))
        spread = x.std(dim=(0, 2)).unsqueeze(1)
        self.spread.copy_(torch.where(spread > 1e-9 * spread.max(), spread, spread.max()))

    def leave(self, series: Float32, axis: Float64) -> None:
        """Take two theta as it is, and intensities such that `series` reaches from 0 to 45.9."""
        lowest, largest = np.nanmin(series), np.nanmax(series)
        self.axis.copy_(torch.tensor(axis))
        self.position.copy_(self._binned())
        self.centre.fill_(float(lowest))
        self.spread.fill_(float(largest - lowest) / LARGEST)

    def _binned(self) -> Tensor:
        return self.axis[: self.bins * self.size].reshape(self.bins, self.size).clone()

    def _cut(self, patterns: Tensor) -> Tensor:
        if self.standardise:
            deviation, mean = torch.std_mean(patterns, dim=1, keepdim=True)
            patterns = (patterns - mean) / deviation.clamp(min=torch.finfo(torch.float32).tiny)
        return patterns[:, : self.bins * self.size].reshape(-1, self.bins, self.size)


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


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The points of m labelled patterns.

    Attributes
    ----------
    intensity
        (m * size, B), scaled.
    position
        (B, size), scaled.
    label
        (m,) int64.
    """

    intensity: Tensor
    position: Tensor
    label: Tensor

    @classmethod
    def of(cls, bins: Bins, patterns: Float32, label: Int64) -> "Points":
        """Cut `patterns` (m, N) into points."""
        x = bins.scaled(torch.from_numpy(patterns))
        return cls(x.transpose(1, 2).flatten(0, 1), bins.position, torch.from_numpy(label))

    def __len__(self) -> int:
        return len(self.intensity)

    def take(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (B, 2, s) and their labels (s,): of `which` (s,), the same in each bin."""
        size = self.position.shape[1]
        x = torch.stack([self.position[:, which % size], self.intensity[which].T], dim=1)
        return x, self.label[which // size]

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return `n` points of each bin by chance, or all if there are no more."""
        which = torch.arange(len(self)) if len(self) <= n else torch.randint(len(self), (n,))
        return self.take(which)


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


def published(patterns: Float32, label: Int64, series: Float32, recipe: Any, seed: int) -> Any:
    """Return the labelled patterns, and replicas of each with one-sided uniform noise."""
    rng = np.random.default_rng([seed, 0])
    amplitude = recipe.noise * (np.nanmax(series) - np.nanmin(series))
    noise = rng.random((recipe.replicas, *patterns.shape), np.float32)
    noisy = patterns + np.float32(amplitude) * noise
    whole = np.concatenate([patterns, noisy.reshape(-1, patterns.shape[1])])
    return whole, np.tile(label, 1 + recipe.replicas)


def ours(patterns: Float32, label: Int64, recipe: Any, seed: int) -> tuple[Any, Any]:
    """Return replicas to train on, the labelled patterns among them, and others held out."""
    how = recipe.augmentation
    milder = replace(
        how, shift=how.shift / MILDER, stretch=how.stretch / MILDER, warp=how.warp / MILDER
    )
    sets = []
    for stream, replicas in ((0, MORE * recipe.replicas), (1, HELD_OUT)):
        rng = np.random.default_rng([seed, stream])
        made = replicate(np.tile(patterns, (replicas, 1)), rng, milder)
        sets.append((made, np.tile(label, replicas)))
    (made, of), held = sets
    return (np.concatenate([patterns, made]), np.concatenate([label, of])), held


def between(held: tuple[Float32, Int64], recipe: Any, seed: int) -> tuple[Float32, Float32]:
    """Return the curves `held` and mixtures of them, and the share of each class in them."""
    patterns, label = np.tile(held[0], (2, 1)), np.tile(held[1], 2)
    mixed = mix(
        patterns,
        np.ones(len(label), np.int64),
        label,
        n_classes=int(label.max()) + 1,
        portion=recipe.mixed,
        rng=np.random.default_rng([seed, 2]),
    )
    return mixed.patterns, mixed.share


def descend(
    net: nn.Module,
    points: Points,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    rate: float,
    decay: float = 0.0,
    drawn: int = DRAWN,
    every: int = EPOCH,
    held: Points | None = None,
    enough: float = 0.0,
    patience: int = 0,
    stop: Callable[[float, Tensor, Tensor], bool] | None = None,
    progress: Progress | None = None,
) -> tuple[int, float]:
    """Train `net` in place with Adam on points drawn anew each step.

    With `held` the rate falls along a cosine, the net is tried every `every` steps, the best
    weights are kept, and it ends when the loss is below `enough` or has not fallen by `GAIN` for
    `patience` tries. Without it ends when `stop` says so of a step's loss, outputs and labels.

    Returns
    -------
    tuple
        The steps that were run, and the held-out or last loss.

    Raises
    ------
    ModelError
        The loss is not finite.
    """
    optimiser = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    look = held.draw(LOOK) if held is not None else None
    best, lowest, kept, since = math.inf, math.inf, net.state_dict(), 0
    net.train()
    for step in range(1, steps + 1):
        x, y = points.draw(drawn)
        optimiser.zero_grad()
        out = net(x)
        objective = loss_of(out, y)
        objective.backward()
        optimiser.step()
        loss = float(objective.detach())
        ended = stop is not None and stop(loss, out.detach(), y)
        if look is not None:
            fall.step()
        if step % every and step < steps and not ended:
            continue
        if look is not None:
            net.eval()
            with torch.inference_mode():
                loss = float(loss_of(net(look[0]), look[1]))
            net.train()
            if loss < best:
                best, kept = loss, {k: v.clone() for k, v in net.state_dict().items()}
            since = 0 if loss < (1 - GAIN) * lowest else since + 1
            lowest = min(lowest, loss) if since == 0 else lowest
            ended = loss < enough or since >= patience
        if not math.isfinite(loss):
            raise ModelError(f"training diverged in step {step}: the loss is {loss}")
        if progress is not None:
            progress(math.ceil(step / every), math.ceil(steps / every), loss)
        if ended:
            break
    if look is None:
        return step, loss
    net.load_state_dict(kept)
    return step, best


def is_thesis(recipe: Any) -> bool:
    """Say whether `recipe` is that of the thesis."""
    return getattr(recipe, "name", "phasewatch") == "thesis"
