"""A small series with a transition, and models trained on it."""

from types import SimpleNamespace

import numpy as np
import pytest

from phasewatch.models.labels import Labels
from phasewatch.models.series import Series
from phasewatch.models.training import Recipe, train

N_POINTS = 160
PEAKS = ((30, 62, 120), (45, 90, 135), (20, 75, 105))  # of each phase, in bins


def make_series(
    *,
    n: int = 40,
    n_classes: int = 2,
    seed: int = 0,
    noise: float = 0.02,
    shift: float = 0.0,
    background: float = 0.3,
) -> tuple[Series, np.ndarray]:
    """Return a series that passes through `n_classes` phases in equal parts, and its labels."""
    rng = np.random.default_rng(seed)
    index = np.arange(N_POINTS)
    truth = np.arange(n) * n_classes // n
    texture = rng.lognormal(0, 0.2, (n_classes, 3))
    rows = []
    for i, k in enumerate(truth):
        y = background * np.exp(-index / 80)
        for peak, height in zip(PEAKS[k], texture[k], strict=True):
            y = y + height * np.exp(-(((index - peak - 2 * i / n - shift) / 3) ** 2))
        rows.append(y + rng.normal(0, noise, N_POINTS))
    series = Series(
        axis=np.linspace(5.0, 20.9, N_POINTS),
        unit="2th_deg",
        intensity=np.array(rows, np.float32),
        ids=np.arange(n),
        index=np.arange(n),
        digest="0" * 64,
        source="synthetic",
        baseline={"method": "asls", "lam": 1e5},
        normalise="minmax",
    )
    return series, truth


def as_input(net, patterns):
    """Return patterns (n, n_points) as a batch of n for `net`: with context, windows of one."""
    return patterns[:, None] if getattr(net, "context", 0) else patterns


def make_labels(truth: np.ndarray, index: list[int]) -> Labels:
    classes = ("before", "after") if truth.max() == 1 else ("before", "during", "after")
    return Labels(np.array(index), truth[index].astype(np.int64), classes)


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    return SimpleNamespace(series=make_series, labels=make_labels, as_input=as_input)


TRAINED = (("cnn", 2), ("cnn", 3), ("fcnn", 2), ("fcnn", 3), ("resnet", 2))


@pytest.fixture(scope="session", params=TRAINED, ids=lambda p: f"{p[0]}-{p[1]}")
def trained(request):
    """Return (net, card, novelty): two networks that are translated, and one that torch runs."""
    model, n_classes = request.param
    series, truth = make_series(n=30, n_classes=n_classes)
    labels = make_labels(truth, [0, 4, 8, 12, 16, 20, 24, 28])
    return train(series, labels, model=model, recipe=Recipe(epochs=2))
