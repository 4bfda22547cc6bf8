"""From a few labelled patterns of a series to a model.

Every epoch shows `Recipe.replicas` fresh replicas of each labelled pattern (`augment`), weighted so
that each class counts alike, to Adam, whose rate falls along a cosine. After each epoch the
network, in evaluation mode, is tried on replicas that it never trains on. They are of the same
labelled patterns, so their loss says when to stop, not how well the model will do on others. The
best weights are kept; training stops early when that loss has been below `Recipe.enough` for
`Recipe.patience` epochs.

The temperature stays 1: held-out replicas are too like the trained ones to find it by.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models import novelty as novelty_of
from phasewatch.models.augment import Augmentation, replicate
from phasewatch.models.card import Axis, Card, Training
from phasewatch.models.errors import ModelError
from phasewatch.models.gaps import bridge, fault
from phasewatch.models.labels import Labels
from phasewatch.models.novelty import Novelty
from phasewatch.models.registry import create
from phasewatch.models.series import Series
from phasewatch.models.store import n_parameters
from phasewatch.models.threads import one_thread

Float32 = NDArray[np.float32]
Progress = Callable[[int, int, float], None]

HELD_OUT = 2  # replicas of each labelled pattern
MAX_RANGE = 512  # patterns that set the range of novelty, at equal distances along the series


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; 10 labels of 4023 points cost the CNN at most 27 s of one core."""

    epochs: int = 80
    replicas: int = 8
    batch: int = 16
    rate: float = 2e-3
    enough: float = 0.01
    patience: int = 10
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "replicas", "batch", "patience"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}: at least 1")


def train(
    series: Series,
    labels: Labels,
    *,
    model: str,
    seed: int = 0,
    recipe: Recipe | None = None,
    licence: str = "not stated",
    progress: Progress | None = None,
    **options: Any,
) -> tuple[nn.Module, Card, Novelty]:
    """Train a network on the labelled patterns of a series.

    The same arguments give the same weights, bit for bit, on the same machine.

    Parameters
    ----------
    series
        All its usable patterns, labelled or not, set the range outside of which a pattern is novel.
    labels
        Of some of its patterns; every class must be there.
    model, **options
        The architecture, as `phasewatch.models.create` takes it.
    progress
        Called after each epoch with the epochs done, their number, and the held-out loss.

    Returns
    -------
    tuple
        The network in evaluation mode, its card (not saved yet) and its novelty statistics.

    Raises
    ------
    ModelError
        A class without a label, a labelled pattern that cannot be used, or training that diverged.
    """
    recipe = recipe or Recipe()
    for k, name in enumerate(labels.classes):
        if k not in labels.label:
            raise ModelError(f"labels: class {name!r} has no pattern")
    for i in labels.index:
        if why := fault(series.intensity[i]):
            raise ModelError(f"labels: index {i}: the pattern cannot be trained on: {why}")
    patterns = bridge(series.intensity[labels.index])
    n_classes = len(labels.classes)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create(model, n_points=len(series.axis), n_classes=n_classes, **options)
        epochs, loss = _fit(net, patterns, labels.label, n_classes, recipe, seed, progress)
    card = Card(
        architecture=model,
        options=options,
        classes=labels.classes,
        axis=Axis.of(series.axis, series.unit),
        baseline=series.baseline,
        normalise=series.normalise,
        context=getattr(net, "context", 0),
        training=Training(
            digest=series.digest,
            provenance=series.source,
            labels=dict(zip(labels.index.tolist(), labels.label.tolist(), strict=True)),
            n_patterns=len(series),
            recipe=asdict(recipe),
            seed=seed,
            epochs=epochs,
            loss=loss,
        ),
        n_parameters=n_parameters(net),
        licence=licence,
        versions={name: version(name) for name in ("phasewatch", "torch", "numpy")},
    )
    return net.eval(), card, training_range(series, recipe.augmentation, seed)


def training_range(series: Series, how: Augmentation, seed: int) -> Novelty:
    """Fit the novelty statistics to the patterns of `series` and one replica of each."""
    usable = [i for i in range(len(series)) if fault(series.intensity[i]) is None]
    spread = np.linspace(0, len(usable) - 1, min(len(usable), MAX_RANGE)).round().astype(int)
    patterns = bridge(series.intensity[np.array(usable)[spread]])
    rng = np.random.default_rng([seed, 2])
    group = np.arange(len(patterns))
    return novelty_of.fit(
        np.concatenate([patterns, replicate(patterns, rng, how)]), np.concatenate([group, group])
    )


def _fit(
    net: nn.Module,
    patterns: Float32,
    label: NDArray[np.int64],
    n_classes: int,
    recipe: Recipe,
    seed: int,
    progress: Progress | None,
) -> tuple[int, float]:
    """Train `net` in place; return the epochs run and the held-out loss of the weights kept."""
    rng = np.random.default_rng([seed, 0])
    augmentation = recipe.augmentation
    weight = torch.from_numpy((1 / np.bincount(label, minlength=n_classes)).astype(np.float32))
    held_label = torch.from_numpy(np.tile(label, HELD_OUT))
    held = torch.from_numpy(
        replicate(np.tile(patterns, (HELD_OUT, 1)), np.random.default_rng([seed, 1]), augmentation)
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.rate)
    per_epoch = math.ceil(len(patterns) * recipe.replicas / recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs * per_epoch)
    best, kept, good = math.inf, net.state_dict(), 0
    for epoch in range(1, recipe.epochs + 1):
        order = np.concatenate([rng.permutation(len(patterns)) for _ in range(recipe.replicas)])
        net.train()
        for rows in np.array_split(order, per_epoch):
            x = _alone(net, torch.from_numpy(replicate(patterns[rows], rng, augmentation)))
            y = torch.from_numpy(label[rows])
            optimiser.zero_grad()
            _loss(net(x), y, weight).backward()
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.inference_mode():
            loss = float(_loss(net(_alone(net, held)), held_label, weight))
        if not math.isfinite(loss):
            raise ModelError(f"training diverged in epoch {epoch}: the loss is {loss}")
        if loss < best:
            best, kept = loss, {k: v.clone() for k, v in net.state_dict().items()}
        if progress is not None:
            progress(epoch, recipe.epochs, loss)
        good = good + 1 if loss < recipe.enough else 0
        if good >= recipe.patience:
            break
    net.load_state_dict(kept)
    return epoch, best


def _alone(net: nn.Module, patterns: torch.Tensor) -> torch.Tensor:
    """Return patterns (n, n_points) as what `net` takes: with context, windows of one."""
    return patterns[:, None] if getattr(net, "context", 0) else patterns


def _loss(logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross entropy, weighted by class: one logit for two classes, else one per class."""
    if logits.shape[1] == 1:
        each = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], label.to(logits.dtype), reduction="none"
        )
    else:
        each = nn.functional.cross_entropy(logits, label, reduction="none")
    w = weight[label]
    return (w * each).sum() / w.sum()
