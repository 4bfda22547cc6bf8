"""What a user would try first: classifiers of scikit-learn, on the same labelled patterns.

Each bin is standardised over these patterns; otherwise the library's defaults hold.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phasewatch.bench.contest.contender import Answer, Contender, usable, whole
from phasewatch.bench.contest.data import Data
from phasewatch.models.series import Series

WEIGHTS = {"nearest-centroid": ("centroids_",), "logistic-regression": ("coef_", "intercept_")}


def learn(data: Data, name: str, *, seed: int) -> Contender:
    """Fit ``nearest-centroid``, ``logistic-regression`` or ``gradient-boosting``."""
    make: dict[str, Callable[[], Any]] = {
        "nearest-centroid": NearestCentroid,
        # lbfgs takes more than its default of 100 steps where patterns have many bins
        "logistic-regression": lambda: LogisticRegression(max_iter=1000),
        "gradient-boosting": lambda: GradientBoostingClassifier(random_state=seed),
    }
    fitted = make_pipeline(StandardScaler(), make[name]())
    fitted.fit(whole(data.train, data.labels.index), data.labels.label)

    def classify(series: Series) -> Answer:
        index = usable(series)
        probability = fitted.predict_proba(whole(series, index))
        return Answer(index, probability.argmax(axis=1).astype(np.int64), probability)

    def one(series: Series) -> Callable[[int], object]:
        patterns = whole(series, usable(series))
        return lambda i: fitted.predict_proba(patterns[i : i + 1])

    weights = [getattr(fitted[-1], array).size for array in WEIGHTS.get(name, ())]
    return Contender(classify, one, sum(weights) or None, None, {})
