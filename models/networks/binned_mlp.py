"""A small network per bin, and a vote of bins that can be believed (Sun 2023, chapter 4).

Each bin has its own Linear 2 -> 150 -> ReLU -> Linear 150 -> k on points (two theta, intensity):
752 weights for two classes. Its separability is the share A_b of points that it classifies
correctly; its believability (eqs. 4.1 and 4.2, for two classes a = 0.55)

    w_b = max(0, (A_b^2 - a^2) / (1 - a^2)),    a = 1.1 / k,

is 0 for a bin that does hardly better than chance. With n_bc the points of bin b that are given to
class c, a curve is of the class c with the largest sum_b w_b n_bc. The logits are the logarithms of
these sums plus one point of mean weight (Laplace), for two classes their difference.

Recipe "thesis": points as they are (intensities in units in which the series reaches from 0 to
45.9, as the published set does), 10 replicas with one-sided uniform noise, Adam at 8e-3 for 700
steps, A_b of the training points. A step sees 1024 points of each bin, drawn anew, where the
published code took all. Its tensor of originals was overwritten by the first replica; here they are
kept.

Recipe "phasewatch": patterns smoothed, each of their bins standardised by itself, the recipe's
replicas and mixtures of them, class weights, the best of the tried weights, A_b of replicas that
were not trained on, averaged over classes. Points do not vote, they say how sure they are: sums of
w_b times the mean log-probability, and what sum tells the classes is learned from the same replicas
(`Level`).
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

FASTER = 4  # than the recipe's rate; that of the thesis is so for this network
DRAWN = 1024  # points of each bin in a step of the thesis's recipe
CHANCE = 1.1  # times 1/k: an accuracy from which on a bin is believed
COUNTED = 1024  # points of each bin that A_b is taken of together


class BinnedMlp(nn.Module):
    """All bins' networks, and their weights in the vote."""

    weight: Tensor

    def __init__(
        self,
        *,
        n_points: int,
        n_classes: int,
        bins: int,
        standardise_bins: bool,
        soft: bool,
        smooth: int = 1,
    ) -> None:
        super().__init__()
        self.soft = soft
        self.bins = Bins(
            name="binned-mlp",
            n_points=n_points,
            bins=bins,
            standardise_bins=standardise_bins,
            smooth=smooth,
        )
        self.points = nn.Sequential(
            Grouped(bins, 2, HIDDEN), nn.ReLU(inplace=True), Grouped(bins, HIDDEN, n_classes)
        )
        self.register_buffer("weight", torch.ones(bins))
        self.level = Level(n_outputs(n_classes))

    def forward(self, patterns: Tensor) -> Tensor:
        """Return logits (n, 1) or (n, n_classes) of `patterns` (n, n_points)."""
        count = torch.cat([self._count(part) for part in patterns.split(TOGETHER)], dim=1)
        total = torch.einsum("b,bnk->nk", self.weight / self.weight.mean(), count)
        log = total if self.soft else torch.log(total + 1)
        return self.level(log[:, 1:] - log[:, :1] if log.shape[1] == 2 else log)

    def _count(self, patterns: Tensor) -> Tensor:
        """Return the points (B, n, k) of each bin that are given to each class.

        Softly, their mean log-probabilities of each class.
        """
        score = self.points(self.bins(patterns))
        n_classes = score.shape[1]
        if self.soft:
            each = score.log_softmax(dim=1).unflatten(2, (len(patterns), self.bins.size))
            return each.mean(dim=3).transpose(1, 2)
        hard = nn.functional.one_hot(score.argmax(dim=1), n_classes).transpose(1, 2)
        soft = score.softmax(dim=1) if score.requires_grad else score
        each = votes(soft, hard).unflatten(2, (len(patterns), self.bins.size))
        return each.sum(dim=3).transpose(1, 2)


def build(
    *,
    n_points: int,
    n_classes: int,
    bins: int = BINS,
    standardise_bins: bool = True,
    soft: bool = True,
    smooth: int = 1,
) -> nn.Module:
    """Make the network.

    Parameters
    ----------
    bins
        Number of bins, each of 2 points at least.
    standardise_bins
        Whether each bin of a pattern has its own mean and deviation taken out.
    soft
        Whether points say how sure they are, rather than vote.
    smooth
        Points, an odd number, over which intensities are averaged.

    Raises
    ------
    ModelError
        `bins` does not fit `n_points`, or `smooth` is even.
    """
    return BinnedMlp(
        n_points=n_points,
        n_classes=n_classes,
        bins=bins,
        standardise_bins=standardise_bins,
        soft=soft,
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
    """Train all bins' networks together, and weigh the bins.

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
    options: dict[str, Any] = {"bins": bins, "standardise_bins": not thesis, "soft": not thesis}
    options["smooth"] = 1 if thesis else SMOOTH
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = BinnedMlp(n_points=patterns.shape[1], n_classes=n_classes, **options)
        if thesis:
            net.bins.leave(series, axis)
            made = published(patterns, label, series, n_classes, recipe, seed)
            judged = points = Points.of(net.bins, made)
            loss_of = _loss(None)
            every = 1
            how = {
                "steps": recipe.epochs,
                "rate": recipe.rate,
                "decay": recipe.decay / bins,  # the loss is the mean over bins
                "drawn": DRAWN,
            }
        else:
            replicas = ours(patterns, label, n_classes, recipe, seed)
            net.bins.scale(axis)
            points, judged = (Points.of(net.bins, x) for x in (replicas.shown, replicas.held))
            loss_of = _loss(balanced(label, n_classes))
            every = EPOCH
            how = {
                "steps": recipe.epochs * EPOCH,
                "rate": FASTER * recipe.rate,
                "held": Points.of(net.bins, replicas.tried),
                "enough": recipe.enough,
                "patience": recipe.patience,
            }
        steps, loss = descend(net.points, points, loss_of, every=every, progress=progress, **how)
        correct = accuracy(net.eval().points, judged, n_classes, by_class=not thesis)
    weight = believability(correct, n_classes)
    believed = bool(weight.any())
    net.weight.copy_(torch.from_numpy(weight if believed else np.ones(bins)))
    if not thesis:
        with torch.inference_mode():
            net.level.fit(net(torch.from_numpy(replicas.held.patterns)), replicas.held.share)
    notes = {
        "steps": steps,
        "separability": [round(float(a), 4) for a in correct],
        "believability": [round(float(w), 4) for w in weight],
        "bins_alike": not believed,  # no bin does better than chance: all count the same
    }
    return Fit(net, options, epochs=-(-steps // every), loss=loss, notes=notes)


def believability(accuracy: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """Return the weights w (B,) of bins whose points are correct in the shares `accuracy` (B,)."""
    a = CHANCE / n_classes
    return np.maximum(0, (accuracy**2 - a**2) / (1 - a**2))


@torch.inference_mode()
def accuracy(
    net: nn.Module, points: Points, n_classes: int, *, by_class: bool
) -> NDArray[np.float64]:
    """Return the share (B,) of points of each bin that are correct, or its mean over classes.

    Of points that are of one class each.
    """
    there = points.share.double().sum(dim=0)
    right = torch.zeros(len(points.position), n_classes, dtype=torch.float64)
    for which in torch.arange(len(points)).split(COUNTED):
        x, share = points.take(which)
        good = (net(x).argmax(dim=1) == share.argmax(dim=1)).double()
        right += good @ share.double()
    size = points.position.shape[1]
    shares = (right / (there * size)).mean(dim=1) if by_class else right.sum(dim=1) / len(points)
    found: NDArray[np.float64] = shares.numpy()
    return found


def _loss(weight: torch.Tensor | None) -> Any:
    """Return the divergence of points, weighted by class, averaged over bins."""

    def loss_of(score: Tensor, share: Tensor) -> Tensor:
        each = score.transpose(1, 2).flatten(0, 1)
        return divergence(each, share.repeat(len(score), 1), weight)

    return loss_of
