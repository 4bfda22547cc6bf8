"""From a few labelled patterns of a series to a model: network, card and novelty statistics.

How the network is trained is said by the recipe (`phasewatch.models.recipes`) and done by
`phasewatch.models.fitting`, or by the architecture's own ``fit`` where it has one.
"""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models import novelty as novelty_of
from phasewatch.models import registry
from phasewatch.models.augment import Augmentation, replicate
from phasewatch.models.card import Axis, Card, Training
from phasewatch.models.errors import ModelError
from phasewatch.models.fitting import Fitted, Progress, by_phasewatch, by_thesis
from phasewatch.models.gaps import bridge, fault
from phasewatch.models.labels import Labels
from phasewatch.models.novelty import Novelty
from phasewatch.models.recipes import Recipe, Thesis, named
from phasewatch.models.series import Series
from phasewatch.models.store import n_parameters
from phasewatch.models.threads import one_thread
from phasewatch.models.windows import Labelled

__all__ = ["Progress", "Recipe", "Thesis", "named", "train", "training_range"]

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

MAX_RANGE = 512  # patterns that set the range of novelty, at equal distances along the series


def train(
    series: Series,
    labels: Labels,
    *,
    model: str,
    seed: int = 0,
    recipe: Recipe | Thesis | str | None = None,
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
        Sequence networks see those before a labelled one as well.
    labels
        Of some of its patterns; every class must be there.
    model, **options
        The architecture, as `phasewatch.models.create` takes it.
    recipe
        Or its name, ``"phasewatch"`` (which is taken without) or ``"thesis"``.
    progress
        Called after each epoch with the epochs done, their number as far as it is known, and the
        loss.

    Returns
    -------
    tuple
        The network in evaluation mode, its card (not saved yet) and its novelty statistics.

    Raises
    ------
    ModelError
        A class without a label, a labelled pattern that cannot be used, or training that diverged.
    """
    if recipe is None or isinstance(recipe, str):
        recipe = named(recipe or "phasewatch", model)
    usable = _check(series, labels)
    patterns = bridge(series.intensity[usable])
    at = np.searchsorted(usable, labels.index)
    n_classes = len(labels.classes)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hasattr(registry.module(model), "fit"):
            fitted, options = _own_fit(
                series, patterns, at, labels, model, recipe, seed, progress, options
            )
        else:
            fitted = _by_gradient(
                patterns, at, labels.label, model, n_classes, recipe, seed, progress, options
            )
    notes = dict(fitted.notes)
    if note := getattr(registry.module(model), "NOTE", ""):
        notes["architecture"] = note
    card = Card(
        architecture=model,
        options=options,
        classes=labels.classes,
        axis=Axis.of(series.axis, series.unit),
        baseline=series.baseline,
        normalise=series.normalise,
        context=getattr(fitted.net, "context", 0),
        temperature=fitted.temperature,
        training=Training(
            digest=series.digest,
            provenance=series.source,
            labels=dict(zip(labels.index.tolist(), labels.label.tolist(), strict=True)),
            n_patterns=len(series),
            recipe=asdict(recipe),
            seed=seed,
            epochs=fitted.epochs,
            loss=fitted.loss,
            notes=notes,
        ),
        n_parameters=n_parameters(fitted.net),
        licence=licence,
        versions={name: version(name) for name in ("phasewatch", "torch", "numpy")},
    )
    return fitted.net.eval(), card, training_range(series, Augmentation(), seed)


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


def _check(series: Series, labels: Labels) -> Int64:
    """Return the patterns (n,) that can be used; refuse labels that cannot be trained on."""
    if not (labels.index.min(initial=0) >= 0 and labels.index.max(initial=0) < len(series)):
        raise ModelError(
            f"labels: index {labels.index.min()} to {labels.index.max()}: the series has "
            f"{len(series)} patterns, 0 to {len(series) - 1}"
        )
    if (np.diff(labels.index) <= 0).any():
        raise ModelError("labels: index does not increase")
    if not (labels.label.min(initial=0) >= 0 and labels.label.max(initial=0) < len(labels.classes)):
        raise ModelError(
            f"labels: label {labels.label.min()} to {labels.label.max()} where classes are 0 to "
            f"{len(labels.classes) - 1}"
        )
    for k, name in enumerate(labels.classes):
        if k not in labels.label:
            raise ModelError(f"labels: class {name!r} has no pattern")
    for i in labels.index:
        if why := fault(series.intensity[i]):
            raise ModelError(f"labels: index {i}: the pattern cannot be trained on: {why}")
    return np.array([i for i in range(len(series)) if fault(series.intensity[i]) is None], np.int64)


def _by_gradient(
    patterns: Float32,
    at: Int64,
    label: Int64,
    model: str,
    n_classes: int,
    recipe: Recipe | Thesis,
    seed: int,
    progress: Progress | None,
    options: dict[str, Any],
) -> Fitted:
    def make() -> nn.Module:
        torch.manual_seed(seed)
        return registry.create(model, n_points=patterns.shape[1], n_classes=n_classes, **options)

    data = Labelled.of(patterns, at, label, getattr(make(), "context", 0))
    if isinstance(recipe, Thesis):
        return by_thesis(make, data, n_classes, recipe, seed, progress)
    return by_phasewatch(make, data, n_classes, recipe, seed, progress)


def _own_fit(
    series: Series,
    patterns: Float32,
    at: Int64,
    labels: Labels,
    model: str,
    recipe: Recipe | Thesis,
    seed: int,
    progress: Progress | None,
    options: dict[str, Any],
) -> tuple[Fitted, dict[str, Any]]:
    """Call the architecture's own ``fit``; return what it gives and the options for its card."""
    fit = registry.module(model).fit
    registry.check_options(model, fit, options)
    found = fit(
        patterns[at],
        labels.label,
        series=patterns,
        axis=series.axis,
        n_classes=len(labels.classes),
        recipe=recipe,
        seed=seed,
        progress=progress,
        **options,
    )
    fitted = Fitted(found.net, found.epochs, found.loss, 1.0, found.notes)
    return fitted, found.options
