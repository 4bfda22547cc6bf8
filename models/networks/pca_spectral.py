"""Principal components and spectral clusters of a series (Sun 2023, chapter 3) as a network.

`fit` clusters the whole series without its labels (`phasewatch.models.spectral`); the labels only
say which cluster is which class. The published method stops there. A new pattern is projected to z
as well, and its 10 nearest fitted patterns i at distance d_i vote with the weight

    1 / (d_i^2 + e_i^2),    e_i = r_i / 4,

r_i the distance from pattern i to the nearest fitted one of another class. A fitted pattern gets
the class of its cluster always: its own weight is 16 / r^2, that of nine others 9 / r^2 at most.
(Only of two patterns that are the same to the last bit, in different clusters, one does not.) With
s_c the share of the weights for class c of k, the probability is that of 10 votes after Laplace,
(s_c + 1/20) / (1 + k/20). No weight is learned by gradient: parameters 0, all else is buffers.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from phasewatch.models import spectral
from phasewatch.models.errors import ModelError
from phasewatch.models.fit import Fit
from phasewatch.models.gaps import bridge
from phasewatch.models.registry import n_outputs
from phasewatch.models.spectral import NEIGHBOURS

MOST = 2048  # patterns that are clustered, at equal distances along a longer series
SMOOTHING = 1 / 20
CLOSEST = 1e-9  # least e, of the width of the scores


class PcaSpectral(nn.Module):
    """Projection and vote; float64 inside, so that a fitted pattern finds itself.

    `labels` (n_fitted, n_classes) is 1 for the class of a fitted pattern, else 0: a card of another
    number of classes does not fit it.
    """

    mean: Tensor
    components: Tensor
    variance: Tensor
    scores: Tensor
    reach: Tensor
    labels: Tensor

    def __init__(self, *, n_points: int, n_classes: int, n_components: int, n_fitted: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        for name, shape in {
            "mean": (n_points,),
            "components": (n_components, n_points),
            "variance": (n_components,),
            "scores": (n_fitted, n_components),
            "reach": (n_fitted,),
            "labels": (n_fitted, n_classes),
        }.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))

    def forward(self, patterns: Tensor) -> Tensor:
        """Return logits (n, 1) or (n, n_classes) of `patterns` (n, n_points)."""
        z = (patterns.double() - self.mean) @ self.components.T
        square = (z[:, None] - self.scores).square().sum(dim=2)
        near, which = square.topk(NEIGHBOURS, dim=1, largest=False)
        weight = 1 / (near + self.reach[which].square())
        share = (weight[:, :, None] * self.labels[which]).sum(dim=1) / weight.sum(
            dim=1, keepdim=True
        )
        log = torch.log(share + SMOOTHING).float()
        return log[:, 1:] - log[:, :1] if n_outputs(self.n_classes) == 1 else log


def build(
    *, n_points: int, n_classes: int, n_components: int = 1, n_fitted: int = NEIGHBOURS + 1
) -> nn.Module:
    """Make an empty network with room for `n_components` axes and `n_fitted` fitted patterns.

    Raises
    ------
    ModelError
        No component, or fewer fitted patterns than vote.
    """
    if n_components < 1:
        raise ModelError(f"pca-spectral: n_components={n_components}: at least 1")
    if n_fitted <= NEIGHBOURS:
        raise ModelError(f"pca-spectral: n_fitted={n_fitted}: at least {NEIGHBOURS + 1}")
    return PcaSpectral(
        n_points=n_points, n_classes=n_classes, n_components=n_components, n_fitted=n_fitted
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
    progress: Any,
    variance: float = 0.99,
) -> Fit:
    """Cluster a series and name the clusters by the labelled patterns.

    Both recipes do the same: that of chapter 3.

    Parameters
    ----------
    patterns, label
        (m, n_points), (m,) those that have a label; also part of the series.
    series
        (n, n_points) all usable patterns in order; of more than 2048, those at equal distances.
    variance
        Share of the variance that the components hold, above 0 and below 1.

    Raises
    ------
    ModelError
        `variance` out of range, too few patterns, all the same, or fewer clusters than classes.
    """
    if not 0 < variance < 1:
        raise ModelError(f"pca-spectral: variance is {variance}: above 0 and below 1")
    spread = np.linspace(0, len(series) - 1, min(len(series), MOST)).round().astype(int)
    whole = spectral.components(bridge(series[spread]))
    kept = whole.first(variance)
    cluster = spectral.clusters(kept.scores, n_classes, seed=seed)
    if (found := len(np.unique(cluster))) < n_classes:
        raise ModelError(f"pca-spectral: {found} clusters were found for {n_classes} classes")
    labelled = (patterns.astype(np.float64) - kept.mean) @ kept.axes.T
    itself = NearestNeighbors(n_neighbors=1).fit(kept.scores).kneighbors(labelled)[1][:, 0]
    named = spectral.names(cluster[itself], label, n_classes)[cluster]
    options = {"n_components": len(kept.axes), "n_fitted": len(kept.scores)}
    net = build(n_points=series.shape[1], n_classes=n_classes, **options)
    state = {
        "mean": kept.mean,
        "components": kept.axes,
        "variance": kept.variance,
        "scores": kept.scores,
        "reach": _reach(kept.scores, named),
        "labels": np.eye(n_classes)[named],
    }
    net.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    loss = _loss(net.eval(), patterns, label)
    if progress is not None:
        progress(1, 1, loss)
    notes = {
        "components": len(kept.axes),
        "variance": float(kept.share.sum()),
        "labels_kept": float(np.mean(named[itself] == label)),
    }
    return Fit(net, options, epochs=1, loss=loss, notes=notes)


def _reach(scores: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return e (n,): a quarter of the distance to the nearest of `scores` with another label."""
    reach = np.empty(len(scores))
    for k in np.unique(label):
        others = NearestNeighbors(n_neighbors=1).fit(scores[label != k])
        reach[label == k] = others.kneighbors(scores[label == k])[0][:, 0] / 4
    return np.maximum(reach, CLOSEST * np.ptp(scores, axis=0).max())


def _loss(net: nn.Module, patterns: NDArray[np.float32], label: NDArray[np.int64]) -> float:
    """Return the cross entropy of the labelled patterns."""
    with torch.inference_mode():
        z = net(torch.from_numpy(patterns)).double()
        if z.shape[1] == 1:
            z = torch.cat([torch.zeros_like(z), z], dim=1)
        return float(nn.functional.cross_entropy(z, torch.from_numpy(label)))
