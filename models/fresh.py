"""Models that were never trained, for measurements of speed; and the forward pass of a user.

Here and not with the benchmarks, since torch is imported in this package only.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phasewatch.models import novelty, store
from phasewatch.models.card import Axis, Card, Training
from phasewatch.models.gaps import bridge
from phasewatch.models.predict import windows
from phasewatch.models.registry import create


def save(
    folder: Path,
    name: str,
    *,
    patterns: NDArray[np.float32],
    axis: NDArray[np.float64],
    unit: str,
    baseline: Mapping[str, Any],
    normalise: str,
    classes: Sequence[str],
    seed: int,
) -> Card:
    """Write the architecture `name` with fresh weights; its labels mean nothing.

    Parameters
    ----------
    patterns
        (n, n_points), n > 1, for the statistics of novelty.
    axis
        (n_points,) in `unit`.
    baseline, normalise
        What was done to the patterns; the card says so.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = create(name, n_points=len(axis), n_classes=len(classes))
    training = Training(
        digest="",
        provenance="untrained",
        labels={},
        n_patterns=len(patterns),
        recipe={},
        seed=seed,
        epochs=0,
        loss=0.0,
    )
    card = Card(
        architecture=name,
        classes=tuple(classes),
        axis=Axis.of(axis, unit),
        baseline=dict(baseline),
        normalise=normalise,
        context=getattr(net, "context", 0),
        training=training,
        n_parameters=store.n_parameters(net),
    )
    return store.save(folder, net, card, novelty.fit(bridge(patterns), np.arange(len(patterns))))


def plain_forward(folder: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the loop body of a user: patterns (n, n_points) to logits, eagerly, on the CPU.

    Torch decides on its threads, as it does for a user. A network with context is given a series,
    one call after the other, and holds the features that it needs.
    """
    net, _, _ = store.load(folder)
    context = getattr(net, "context", 0)
    held = torch.empty(0)  # features of the patterns before

    def forward(patterns: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal held
        x = torch.from_numpy(patterns)
        with torch.inference_mode():
            if context:
                features = net.embed(x)
                held = torch.cat([held.reshape(-1, features.shape[1]), features])
                parts = windows(held, first=len(held) - len(x), context=context)
                logits = torch.cat([net.follow(part) for part in parts])
                held = held[-context:]
            else:
                logits = net(x)
            found: NDArray[np.float32] = logits.numpy()
            return found

    return forward
