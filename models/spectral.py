"""Clusters of a series in the space of its principal components (Sun 2023, chapter 3).

Patterns x of a series, less their mean, are projected onto the components C of a principal
component analysis that together hold a given share of the variance: z = C (x - mean). A graph joins
each z to its `NEIGHBOURS` nearest; the eigenvectors of its normalised Laplacian, cut by k-means,
give the clusters (Ng, Jordan and Weiss 2001, NIPS 14, 849). No label is needed for that.

What points of the axis the components look at: loading l_jc = C_cj sqrt(v_c), v the variance
explained by component c; contribution of point j = sum_c l_jc^2 / sum_jc l_jc^2.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from phasewatch.models.confidence import classification_confidence
from phasewatch.models.errors import ModelError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

NEIGHBOURS = 10
# the shares of variance of figure 3.7
VARIANCES = np.concatenate([np.arange(0.55, 0.999, 0.02), np.arange(0.999, 0.9999, 5e-5)])


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Principal components of a series of n patterns.

    Attributes
    ----------
    mean
        (n_points,) of the patterns.
    axes
        (n_components, n_points) orthonormal rows, the one of most variance first.
    variance
        (n_components,) along each axis.
    share
        (n_components,) of the total variance.
    scores
        (n, n_components) the patterns on the axes.
    """

    mean: Float64
    axes: Float64
    variance: Float64
    share: Float64
    scores: Float64

    def first(self, variance: float) -> "Components":
        """Keep the fewest components that hold more than the share `variance`, or all."""
        n = int(np.searchsorted(np.cumsum(self.share), variance, side="right")) + 1
        return Components(
            self.mean, self.axes[:n], self.variance[:n], self.share[:n], self.scores[:, :n]
        )


def components(series: NDArray[np.float32]) -> Components:
    """Return all principal components of `series` (n, n_points).

    Raises
    ------
    ModelError
        Fewer patterns than a graph needs, or patterns that are all the same.
    """
    if len(series) <= NEIGHBOURS:
        raise ModelError(
            f"pca-spectral: the series has {len(series)} usable patterns; each needs "
            f"{NEIGHBOURS} neighbours, so there must be at least {NEIGHBOURS + 1}"
        )
    x = series.astype(np.float64)
    if not np.ptp(x, axis=0).any():
        raise ModelError("pca-spectral: all patterns of the series are the same")
    with threadpool_limits(1):  # threads share out the sums otherwise: other last bits
        pca = PCA(svd_solver="full").fit(x)
        scores = (x - pca.mean_) @ pca.components_.T
    return Components(
        pca.mean_, pca.components_, pca.explained_variance_, pca.explained_variance_ratio_, scores
    )


def clusters(scores: Float64, n_clusters: int, *, seed: int) -> Int64:
    """Return the cluster (n,) of each of `scores` (n, n_components).

    Numbered in the order in which they first appear along the series.
    """
    how = SpectralClustering(
        n_clusters,
        affinity="nearest_neighbors",
        n_neighbors=NEIGHBOURS,
        assign_labels="kmeans",
        n_init=10,
        random_state=seed,
    )
    with threadpool_limits(1), warnings.catch_warnings():
        # An abrupt transition leaves no edge between the phases, which is what is looked for.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        # Patterns that repeat each other may leave fewer clusters; who asks counts them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = how.fit_predict(scores)
    _, first, number = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def names(cluster: Int64, label: Int64, n_classes: int) -> Int64:
    """Return the class (n_classes,) that each cluster shows, every class once.

    The assignment under which most labelled patterns keep their label (the Hungarian method). Where
    labels leave it open, and without any, clusters are named in the order of their numbers.

    Parameters
    ----------
    cluster, label
        (m,) of the labelled patterns.
    """
    kept = np.zeros((n_classes, n_classes))
    np.add.at(kept, (cluster, label), 1)
    in_order = np.eye(n_classes) / (n_classes + 1)  # all together count less than one label
    _, named = linear_sum_assignment(kept + in_order, maximize=True)
    return named.astype(np.int64)


def loadings(axes: Float64, variance: Float64) -> Float64:
    """Return the loadings (n_points, n_components): ``axes^T sqrt(variance)``."""
    return axes.T * np.sqrt(variance)


def contributions(loadings: Float64) -> Float64:
    """Return the share (n_points,) of each point in the squares of `loadings`; their sum is 1."""
    squares = (loadings**2).sum(axis=1)
    shares: Float64 = squares / squares.sum()
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Classification confidence against the variance that the components hold (figure 3.7).

    Attributes
    ----------
    variance
        (t,) shares asked for.
    n_components
        (t,) int64, kept for that.
    confidence
        (t,) of the clusters, in the order of their first appearance.
    """

    variance: Float64
    n_components: Int64
    confidence: Float64


def sweep(
    series: NDArray[np.float32],
    *,
    n_classes: int = 2,
    seed: int = 0,
    variances: Float64 = VARIANCES,
) -> Sweep:
    """Cluster `series` (n, n_points) over a range of explained variance.

    Parameters
    ----------
    variances
        (t,) shares between 0 and 1; those that keep the same components are clustered once.
    """
    whole = components(series)
    confidence: dict[int, float] = {}
    n_components = []
    for variance in variances:
        scores = whole.first(float(variance)).scores
        n = scores.shape[1]
        if n not in confidence:
            found = clusters(scores, n_classes, seed=seed)
            confidence[n] = classification_confidence(found, n_classes)
        n_components.append(n)
    return Sweep(
        np.asarray(variances, np.float64),
        np.array(n_components, np.int64),
        np.array([confidence[n] for n in n_components]),
    )
