"""What a user would try first: scikit-learn, and change points without labels (ruptures).

scikit-learn's classifiers learn from the same labelled patterns, each bin standardised over them,
otherwise with the defaults of the library. Change points are looked for in the whole series at
once, after the fact, and no label is used: ruptures' `KernelCPD` finds the exact optimum of its
cost (``l2``: mean shifts; ``rbf``: shifts of a Gaussian kernel's mean, the kernel's width by the
median heuristic) on the principal components' scores of the series judged, 99 % of its variance.
It is told how many changes there are, which in an experiment nobody could tell it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from phasewatch.bench.contest.contender import Answer, Contender, usable, whole
from phasewatch.bench.contest.data import Data
from phasewatch.models.series import Series

EXPLAINED = 0.99
KERNELS = {"change-points-l2": "linear", "change-points-rbf": "rbf"}
CLASSIFIERS = ("nearest-centroid", "logistic-regression", "gradient-boosting")
NAMES = (*CLASSIFIERS, *KERNELS)
SEEDED = ("gradient-boosting",)  # the others give the same whatever the seed


def learn(data: Data, name: str, *, seed: int) -> Contender:
    """Fit the contender `name`, one of `NAMES`."""
    return _change_points(data, name) if name in KERNELS else _classifier(data, name, seed)


def _classifier(data: Data, name: str, seed: int) -> Contender:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    make: dict[str, Callable[[], Any]] = {
        "nearest-centroid": NearestCentroid,
        "logistic-regression": lambda: LogisticRegression(max_iter=1000),
        "gradient-boosting": lambda: GradientBoostingClassifier(random_state=seed),
    }
    fitted = make_pipeline(StandardScaler(), make[name]())
    fitted.fit(whole(data.train, data.labels.index), data.labels.label)
    last = fitted[-1]

    def classify(series: Series) -> Answer:
        index = usable(series)
        probability = fitted.predict_proba(whole(series, index))
        return Answer(index, probability.argmax(axis=1).astype(np.int64), probability)

    def one(series: Series) -> Callable[[int], object]:
        patterns = whole(series, usable(series))
        return lambda i: fitted.predict_proba(patterns[i : i + 1])

    arrays = {"nearest-centroid": ("centroids_",), "logistic-regression": ("coef_", "intercept_")}
    sizes = [getattr(last, array).size for array in arrays.get(name, ())]
    return Contender(classify, one, sum(sizes) or None, None, {})


def _change_points(data: Data, name: str) -> Contender:
    n_changes = len(data.labels.classes) - 1

    def classify(series: Series) -> Answer:
        import ruptures
        from sklearn.decomposition import PCA

        index = usable(series)
        scores = PCA(EXPLAINED, svd_solver="full").fit_transform(whole(series, index))
        search = ruptures.KernelCPD(kernel=KERNELS[name], min_size=2).fit(scores)
        ends = search.predict(n_bkps=n_changes)
        label = np.searchsorted(ends[:-1], np.arange(len(index)), side="right")
        return Answer(index, label.astype(np.int64), None)

    return Contender(classify, None, None, None, {"labels": "none used", "n_changes": n_changes})
