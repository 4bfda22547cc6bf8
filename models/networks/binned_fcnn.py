"""A small network per bin and one that weighs them, trained together (Sun 2023, 5.1.1).

One sample is the i-th point (two theta, intensity) of every bin of one curve:

    per bin  Linear 2 -> 150 -> BatchNorm -> ReLU -> Linear 150 -> k -> BatchNorm -> Sigmoid
    then     Linear k B -> the logits of the sample

with k = 2 for two classes, whose logit is one: 1058 B + 1 parameters for B bins. For more classes
k is their number: B (750 + 153 k + k^2) + k. A curve has ``size = N // B`` samples, and is of the
class that most are given to; of two, the first if more than ``size // 2`` are (a tie is the
second's). With n_c samples of class c the logits are log(n_c + 1), for two classes
log((n_1 + 1) / (n_0 + 1/2)), where the half settles the tie.

Recipe "thesis": points as they are (intensities in units in which the series reaches from 0 to
45.9, as the published set does), 15 replicas with one-sided uniform noise, Adam at 2e-3, at most
550 steps, ended by a loss below 0.15 or else an accuracy above 0.99. A step sees 1024 samples,
drawn anew, where the published code took all; it also predicted with BatchNorm in training mode,
here it does not.

Recipe "phasewatch": patterns smoothed, each of their bins standardised by itself, the recipe's
replicas and mixtures of them, class weights, the best of the tried weights, and the share of
samples that tells the classes learned from replicas that were not trained on (`Level`). Both end
with BatchNorm's statistics taken of the trained weights, not of those on the way.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phasewatch.models.fit import Fit
from phasewatch.models.losses import balanced, divergence
from phasewatch.models.networks.bin_points import (
    EPOCH,
    Points,
    Progress,
    descend,
    is_thesis,
    ours,
    published,
)
from phasewatch.models.networks.bins import (
    BINS,
    HIDDEN,
    SMOOTH,
    TOGETHER,
    Bins,
    Grouped,
    Level,
    votes,
)
from phasewatch.models.registry import n_outputs
from phasewatch.models.threads import one_thread

DRAWN = 1024  # samples in a step of the thesis's recipe
LOW, HIGH = 0.15, 0.99  # loss and accuracy that end it
SETTLED = 32  # draws of as many that BatchNorm's statistics are taken of


class Samples(nn.Module):
    """Samples (B, 2, s) to their logits (s, 1) or (s, n_classes)."""

    def __init__(self, *, bins: int, n_classes: int) -> None:
        super().__init__()
        self.hidden = Grouped(bins, 2, HIDDEN)
        self.hidden_norm = nn.BatchNorm1d(bins * HIDDEN)
        self.features = Grouped(bins, HIDDEN, n_classes)
        self.features_norm = nn.BatchNorm1d(bins * n_classes)
        self.output = nn.Linear(bins * n_classes, n_outputs(n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        h = self.hidden(x)
        h = self.hidden_norm(h.flatten(0, 1).unsqueeze(0)).view_as(h).relu_()
        f = self.features_norm(self.features(h).flatten(0, 1).unsqueeze(0)).squeeze(0)
        logits: Tensor = self.output(f.sigmoid().T)
        return logits


class BinnedFcnn(nn.Module):
    """The samples' network, and the vote of a curve's samples."""

    def __init__(
        self, *, n_points: int, n_classes: int, bins: int, standardise_bins: bool, smooth: int = 1
    ) -> None:
        super().__init__()
        self.bins = Bins(
            name="binned-fcnn",
            n_points=n_points,
            bins=bins,
            standardise_bins=standardise_bins,
            smooth=smooth,
        )
        self.samples = Samples(bins=bins, n_classes=n_classes)
        self.level = Level(n_outputs(n_classes))

    def forward(self, patterns: Tensor) -> Tensor:
        """Return logits (n, 1) or (n, n_classes) of `patterns` (n, n_points)."""
        if self.training:  # the statistics of a batch are those of all its samples
            return self._logits(patterns)
        return torch.cat([self._logits(part) for part in patterns.split(TOGETHER)])

    def _logits(self, patterns: Tensor) -> Tensor:
        z = self.samples(self.bins(patterns))
        if z.shape[1] == 1:
            each = votes(z.sigmoid(), z > 0).view(len(patterns), -1)
            second = each.sum(dim=1, keepdim=True)
            first = self.bins.size - second
            return self.level(torch.log((second + 1) / (first + 0.5)))
        hard = nn.functional.one_hot(z.argmax(dim=1), z.shape[1])
        each = votes(z.softmax(dim=1), hard).unflatten(0, (len(patterns), -1))
        return self.level(torch.log(each.sum(dim=1) + 1))


def build(
    *,
    n_points: int,
    n_classes: int,
    bins: int = BINS,
    standardise_bins: bool = True,
    smooth: int = 1,
) -> nn.Module:
    """Make the network.

    Parameters
    ----------
    bins
        Number of bins, each of 2 points at least.
    standardise_bins
        Whether each bin of a pattern has its own mean and deviation taken out.
    smooth
        Points, an odd number, over which intensities are averaged.

    Raises
    ------
    ModelError
        `bins` does not fit `n_points`, or `smooth` is even.
    """
    return BinnedFcnn(
        n_points=n_points,
        n_classes=n_classes,
        bins=bins,
        standardise_bins=standardise_bins,
        smooth=smooth,
    )


def fit(
    patterns: NDArray[np.float32],
    label: NDArray[np.int64],
    *,
    series: NDArray[np.float32],
    axis: NDArray[np.float64],
    n_classes: int,
    recipe: Any,
    seed: int,
    progress: Progress | None,
    bins: int = BINS,
) -> Fit:
    """Train the network on samples of the labelled patterns.

    Parameters
    ----------
    patterns, label
        (m, n_points), (m,) labelled.
    series, axis
        (n, n_points) all usable patterns, whose range sets the unit of the thesis's recipe, on
        `axis` (n_points,).
    recipe
        Its `name` says which. That of the thesis has `epochs` (steps), `replicas`, `noise` (a
        fraction of the range), `rate` and `decay`; ours `epochs` (of 40 steps), `replicas`,
        `rate`, `enough`, `patience` and `augmentation`.

    Raises
    ------
    ModelError
        `bins` does not fit, or training diverged.
    """
    thesis = is_thesis(recipe)
    options: dict[str, Any] = {"bins": bins, "standardise_bins": not thesis}
    options["smooth"] = 1 if thesis else SMOOTH
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = BinnedFcnn(n_points=patterns.shape[1], n_classes=n_classes, **options)
        how: dict[str, Any]
        if thesis:
            net.bins.leave(series, axis)
            shown = published(patterns, label, series, n_classes, recipe, seed)
            weight, every = None, 1
            how = {
                "steps": recipe.epochs,
                "decay": recipe.decay,
                "drawn": DRAWN,
                "stop": good_enough,
            }
        else:
            shown, tried, held = ours(patterns, label, n_classes, recipe, seed)
            net.bins.scale(axis)
            weight, every = balanced(label, n_classes), EPOCH
            how = {
                "steps": recipe.epochs * EPOCH,
                "held": Points.of(net.bins, tried),
                "enough": recipe.enough,
                "patience": recipe.patience,
            }
        points = Points.of(net.bins, shown)
        steps, loss = descend(
            net.samples,
            points,
            lambda logits, share: divergence(logits, share, weight),
            rate=recipe.rate,
            every=every,
            progress=progress,
            **how,
        )
        settle(net.samples, points)
    net.eval()
    if not thesis:
        with torch.inference_mode():
            net.level.fit(net(torch.from_numpy(held.patterns)), held.share)
    return Fit(net, options, epochs=-(-steps // every), loss=loss, notes={"steps": steps})


def good_enough(loss: float, logits: Tensor, share: Tensor) -> bool:
    """Say whether a step ends the thesis's recipe: a low loss, else a high accuracy."""
    if loss < LOW:
        return True
    found = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(dim=1)
    return float((found == share.argmax(dim=1)).double().mean()) > HIGH


@torch.no_grad()
def settle(net: nn.Module, points: Points) -> None:
    """Take the statistics of every BatchNorm of `net` anew, with its weights as they are."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over draws
    net.train()
    for _ in range(SETTLED):
        net(points.draw(DRAWN)[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
