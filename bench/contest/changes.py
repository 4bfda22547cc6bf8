"""Change points of the series that is judged, after the fact and without any label (ruptures).

`KernelCPD` finds the exact optimum of its cost on the scores of the principal components that hold
99 % of the series' variance: ``l2``, shifts of the mean; ``rbf``, shifts of the mean in a Gaussian
kernel's space, the kernel's width by the median heuristic. It is told how many changes there are,
which in an experiment nobody could tell it. Truong et al., Signal Processing 167, 107299 (2020).
"""

import numpy as np
from ruptures import KernelCPD
from sklearn.decomposition import PCA

from phasewatch.bench.contest.contender import Answer, Contender, usable, whole
from phasewatch.bench.contest.data import Data
from phasewatch.models.series import Series

EXPLAINED = 0.99
KERNELS = {"change-points-l2": "linear", "change-points-rbf": "rbf"}


def learn(data: Data, name: str) -> Contender:
    """Return the contender `name`, of `KERNELS`; it gives labels without probabilities."""
    n_changes = len(data.labels.classes) - 1

    def classify(series: Series) -> Answer:
        index = usable(series)
        scores = PCA(EXPLAINED, svd_solver="full").fit_transform(whole(series, index))
        search = KernelCPD(kernel=KERNELS[name], min_size=2).fit(scores)
        ends = search.predict(n_bkps=n_changes)
        label = np.searchsorted(ends[:-1], np.arange(len(index)), side="right")
        return Answer(index, label.astype(np.int64), None)

    return Contender(classify, None, None, None, {"labels": "none used", "n_changes": n_changes})
