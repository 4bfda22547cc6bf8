"""How both binned networks are trained: points of labelled curves, and steps on some of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phasewatch.models.augment import replicate
from phasewatch.models.errors import ModelError
from phasewatch.models.mixing import Mixed, mix
from phasewatch.models.networks.bins import Bins

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Progress = Callable[[int, int, float], None]

HELD_OUT = 4  # replicas of each labelled pattern
LOOK = 2048  # held-out points of each bin that the loss is taken of
GAIN = 1e-3  # of the loss; less does not count as falling

# Points of each bin in one step. 128 of 15 bins keep the hidden values within 1.2 MB, a
# second-level cache: 2 ms a step. 1024 take 20 ms or more.
DRAWN = 128
EPOCH = 40  # steps

# Replicas for networks that see one point at a time have half the recipe's shift, stretch and warp:
# a point has no neighbours by which to know a peak that has moved or grown.
MILDER = 2
MORE = 4  # times the recipe's replicas; points are drawn from them, so they cost memory only


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The points of m labelled patterns.

    Attributes
    ----------
    intensity
        (m * size, B), scaled.
    position
        (B, size), scaled.
    share
        (m, n_classes), how much of each class is in a pattern.
    """

    intensity: Tensor
    position: Tensor
    share: Tensor

    @classmethod
    def of(cls, bins: Bins, curves: Mixed) -> "Points":
        """Cut `curves` into points."""
        x = bins.scaled(torch.from_numpy(curves.patterns))
        return cls(x.transpose(1, 2).flatten(0, 1), bins.position, torch.from_numpy(curves.share))

    def __len__(self) -> int:
        return len(self.intensity)

    def take(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (B, 2, s) and their shares (s, n_classes): `which` (s,) in each bin."""
        size = self.position.shape[1]
        x = torch.stack([self.position[:, which % size], self.intensity[which].T], dim=1)
        return x, self.share[which // size]

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return `n` points of each bin by chance, or all if there are no more."""
        which = torch.arange(len(self)) if len(self) <= n else torch.randint(len(self), (n,))
        return self.take(which)


def published(
    patterns: Float32, label: Int64, series: Float32, n_classes: int, recipe: Any, seed: int
) -> Mixed:
    """Return the labelled patterns, and replicas of each with one-sided uniform noise."""
    rng = np.random.default_rng([seed, 0])
    amplitude = recipe.noise * (np.nanmax(series) - np.nanmin(series))
    noise = rng.random((recipe.replicas, *patterns.shape), np.float32)
    noisy = patterns + np.float32(amplitude) * noise
    whole = np.concatenate([patterns, noisy.reshape(-1, patterns.shape[1])])
    return Mixed(whole, np.eye(n_classes, dtype=np.float32)[np.tile(label, 1 + recipe.replicas)])


class Replicas(NamedTuple):
    """What our recipe trains on: `shown` and, of other chance, `tried`, which are mixtures in part.

    `held` are those of which `tried` are made, as they were.
    """

    shown: Mixed
    tried: Mixed
    held: Mixed


def ours(patterns: Float32, label: Int64, n_classes: int, recipe: Any, seed: int) -> Replicas:
    """Make replicas of the labelled patterns."""
    how = recipe.augmentation
    milder = replace(
        how, shift=how.shift / MILDER, stretch=how.stretch / MILDER, warp=how.warp / MILDER
    )

    def make(stream: int, replicas: int, portion: float) -> Mixed:
        rng = np.random.default_rng([seed, stream])
        made = replicate(np.tile(patterns, (replicas, 1)), rng, milder)
        one, of = np.ones(len(made), np.int64), np.tile(label, replicas)
        return mix(made, one, of, n_classes=n_classes, portion=portion, rng=rng)

    return Replicas(
        shown=make(0, MORE * recipe.replicas, recipe.mixed),
        tried=make(1, HELD_OUT, recipe.mixed),
        held=make(1, HELD_OUT, 0.0),
    )


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
    `patience` tries. Without it ends when `stop` says so of a step's loss, outputs and shares.

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
