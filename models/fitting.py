"""Gradient training of a network by either recipe.

`by_phasewatch` trains first on a part of the labels, with the others, held out in time, to say when
to stop and how far the probabilities can be believed (temperature). The best weights then go on
with all labels for a quarter of the epochs: what was held out are often a third of very few labels.
Of two classes up to half of what is shown are mixtures (`phasewatch.models.mixing`).

`by_thesis` takes a fixed number of steps, each with all patterns.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models.augment import replicate
from phasewatch.models.errors import ModelError
from phasewatch.models.losses import balanced, divergence
from phasewatch.models.mixing import mix
from phasewatch.models.recipes import Recipe, Thesis
from phasewatch.models.temperature import fit_temperature
from phasewatch.models.validation import split
from phasewatch.models.windows import Labelled, logits

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Progress = Callable[[int, int, float], None]
Make = Callable[[], nn.Module]

ANEW = 4  # part of the epochs that follow with all labels
# Over this part of the steps the rate of networks that look back rises. Without it, where patterns
# are alike but for little, the Transformer and the LSTM came to answer the same to each of them: on
# the NaCl series, five seeds, they were right on 45 and 77 %; with it on 98 and 98 %. It costs the
# Transformer 3 of 97 % on the CuCl2 series.
WARM_UP = 4
HELD_OUT = 4  # replicas of each held-out pattern
# And so many windows at least: of 16 on a short run two were mixed, the others soon right, and of
# the Transformer the weights after its first epoch were taken.
HELD_OUT_WINDOWS = 40
# Batches that set the running statistics of batch normalisation in the end. Those of the steps lag
# behind the weights: with them the ResNet, after 48 steps, was right on 48 % of another run's
# patterns; with these on 97 %.
SETTLING = 8
CHUNK = 128  # patterns at most that go through a network together


class Fitted(NamedTuple):
    """A trained network, in evaluation mode, and what its card says of the training."""

    net: nn.Module
    epochs: int
    loss: float
    temperature: float
    notes: dict[str, Any]


class Batch(NamedTuple):
    """Windows, one after the other, their lengths, and the share of each class in them."""

    patterns: torch.Tensor
    length: Int64
    share: torch.Tensor


def by_phasewatch(
    make: Make,
    data: Labelled,
    n_classes: int,
    recipe: Recipe,
    seed: int,
    progress: Progress | None = None,
) -> Fitted:
    """Train a network that `make` makes, the same each time; see the module."""
    train, held, spared = split(data.label)
    tried = data.some(np.sort(np.concatenate([held, spared])))
    check = _replicas(tried, n_classes, recipe, np.random.default_rng([seed, 1]))
    weight = balanced(tried.label, n_classes)
    net, best, epochs, wait, good = make(), math.inf, 0, 0, 0
    total = recipe.epochs * (2 if len(held) else 1)
    for epoch in _train(net, data.some(train), n_classes, recipe, recipe.epochs, [seed, 0]):
        now = _logits(net, check)
        loss = float(divergence(now, check.share, weight))
        if not math.isfinite(loss):
            raise ModelError(f"training diverged in epoch {epoch}: the loss is {loss}")
        wait, good = wait + 1, good + 1 if loss < recipe.enough else 0
        if loss < best:
            best, found, epochs, wait = loss, now, epoch, 0
            kept = {k: v.clone() for k, v in net.state_dict().items()}
        if progress is not None:
            progress(epoch, total, loss)
        if wait >= recipe.patience or good >= recipe.steady:
            break
    temperature = fit_temperature(found, check.share, weight)
    net.load_state_dict(kept)
    if len(held):
        more = math.ceil(epochs / ANEW)
        for again in _train(net, data, n_classes, recipe, more, [seed, 3]):
            if progress is not None:
                progress(epoch + again, epoch + more, best)
    rng = np.random.default_rng([seed, 4])
    rows = [rng.permutation(len(data))[: recipe.batch] for _ in range(SETTLING)]
    _settle(net, [_batch(data, r, data.longest()[r], n_classes, recipe, rng) for r in rows])
    if not _logits(net, check).isfinite().all():
        raise ModelError(f"training diverged after epoch {epoch}, with all labels")
    notes = {
        "held_out": data.at[held].tolist(),
        "not_validated": np.unique(data.label[spared]).tolist(),
    }
    return Fitted(net.eval(), epochs, best, temperature, notes)


def by_thesis(
    make: Make,
    data: Labelled,
    n_classes: int,
    recipe: Thesis,
    seed: int,
    progress: Progress | None = None,
) -> Fitted:
    """Train a network that `make` makes with the steps of the thesis.

    A batch goes through the network in chunks of whole replicas whose gradients are added, so that
    memory stays small; batch normalisation, alone, sees a chunk at a time.

    Not as published: batch normalisation is in evaluation mode at prediction. After five steps its
    running means, which keep 0.9 of the last value, still hold 0.59 of their start; they are
    estimated anew over all patterns when the steps are done. Windows of a sequence network are
    consecutive patterns, and there are so many replicas fewer as a window has patterns.
    """
    rng = np.random.default_rng([seed, 0])
    net = make()
    length = data.longest()
    rows = np.arange(len(data))
    clean = data.patterns[data.windows(rows, length)[0]]
    amplitude = recipe.noise * float(np.ptp(data.patterns))
    replicas = math.ceil((recipe.replicas + 1) / (data.context + 1)) - 1
    sets = [clean]
    for _ in range(replicas):
        sets.append(clean + np.float32(amplitude) * rng.random(clean.shape, np.float32))
    whole = np.eye(n_classes, dtype=np.float32)[data.label]
    together = max(CHUNK // len(clean), 1)
    chunks = [
        Batch(
            torch.from_numpy(np.concatenate(part)),
            np.tile(length, len(part)),
            torch.from_numpy(np.tile(whole, (len(part), 1))),
        )
        for part in (sets[i : i + together] for i in range(0, len(sets), together))
    ]
    n = sum(len(chunk.share) for chunk in chunks)
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    net.train()
    loss = math.nan
    for step in range(1, recipe.epochs + 1):
        optimiser.zero_grad()
        loss = 0.0
        for chunk in chunks:
            part_loss = divergence(logits(net, chunk.patterns, chunk.length), chunk.share)
            part_loss = part_loss * (len(chunk.share) / n)
            part_loss.backward()
            loss += float(part_loss.detach())
        optimiser.step()
        if not math.isfinite(loss):
            raise ModelError(f"training diverged in epoch {step}: the loss is {loss}")
        if progress is not None:
            progress(step, recipe.epochs, loss)
    _settle(net, chunks)
    notes = {"replicas": replicas, "noise_amplitude": amplitude}
    return Fitted(net.eval(), recipe.epochs, loss, 1.0, notes)


def _train(
    net: nn.Module, data: Labelled, n_classes: int, recipe: Recipe, epochs: int, seed: list[int]
) -> Iterator[int]:
    """Train `net` in place; yield the number of each epoch when it is done."""
    rng = np.random.default_rng(seed)
    weight = balanced(data.label, n_classes)
    shown = max(min(recipe.replicas * len(data), recipe.shown), len(data))
    per_epoch = math.ceil(shown / recipe.batch)
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.rate)
    schedule = rate_schedule(optimiser, epochs * per_epoch, rising=data.context > 0)
    for epoch in range(1, epochs + 1):
        rounds = math.ceil(shown / len(data))
        order = np.concatenate([rng.permutation(len(data)) for _ in range(rounds)])[:shown]
        net.train()
        for rows in np.array_split(order, per_epoch):
            batch = _batch(data, rows, data.lengths(rows, rng), n_classes, recipe, rng)
            optimiser.zero_grad()
            divergence(logits(net, batch.patterns, batch.length), batch.share, weight).backward()
            optimiser.step()
            schedule.step()
        net.eval()
        yield epoch


def rate_schedule(
    optimiser: torch.optim.Optimizer, steps: int, *, rising: bool
) -> torch.optim.lr_scheduler.LRScheduler:
    """Let the rate fall along a cosine, perhaps after it has risen along a line."""
    schedules = torch.optim.lr_scheduler
    fall = schedules.CosineAnnealingLR(optimiser, steps)
    warm = steps // WARM_UP
    if not rising or not warm:
        return fall
    rise = schedules.LinearLR(optimiser, 1 / (warm + 1), total_iters=warm)
    return schedules.ChainedScheduler([fall, rise], optimiser)


def _batch(
    data: Labelled,
    rows: Int64,
    length: Int64,
    n_classes: int,
    recipe: Recipe,
    rng: np.random.Generator,
) -> Batch:
    """Make replicas of windows, each of one shift, stretch and warp, and mix some of them."""
    held, window = data.windows(rows, length)
    made = replicate(
        data.patterns[held], rng, recipe.augmentation, group=window, level=data.level[held]
    )
    found = mix(made, length, data.label[rows], n_classes=n_classes, portion=recipe.mixed, rng=rng)
    return Batch(torch.from_numpy(found.patterns), length, torch.from_numpy(found.share))


def _replicas(data: Labelled, n_classes: int, recipe: Recipe, rng: np.random.Generator) -> Batch:
    replicas = max(HELD_OUT, math.ceil(HELD_OUT_WINDOWS / len(data))) if data.context else HELD_OUT
    rows = np.tile(np.arange(len(data)), replicas)
    return _batch(data, rows, data.longest()[rows], n_classes, recipe, rng)


def _logits(net: nn.Module, batch: Batch) -> torch.Tensor:
    net.eval()
    with torch.inference_mode():
        return logits(net, batch.patterns, batch.length)


def _settle(net: nn.Module, chunks: list[Batch]) -> None:
    """Set the running statistics of batch normalisation to their means over `chunks`."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    with torch.no_grad():
        for chunk in chunks:
            logits(net, chunk.patterns, chunk.length)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
