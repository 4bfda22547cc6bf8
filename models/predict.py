"""Patterns to probabilities and novelty, the same bits for a pattern whatever batch it is in.

On a CPU the network is translated into kernels that sum in the same order whatever the batch
(`phasewatch.models.forward`). Where it cannot be, and on CUDA, torch runs it; its matrix products
round differently for different numbers of rows, so that it always sees a tile of the same shape: on
a CPU one pattern on one thread, on CUDA `CUDA_TILE` patterns, the last tile filled up with zeros.

A network with temporal context (`phasewatch.models.networks.sequence`) turns each pattern into
features once; then its windows take the place of patterns. The features that later patterns need
come out as `Predictions.memory` and go back in with the next call, so that a series can be cut
anywhere and gives the same bits.

Patterns that are already on a torch device stay there; they are bridged and their novelty is scored
by `phasewatch.models.device`, which rounds otherwise in the last bits.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models import device as on_device
from phasewatch.models.card import Card, check
from phasewatch.models.errors import ModelError
from phasewatch.models.forward import compiled
from phasewatch.models.gaps import bridge
from phasewatch.models.kernels import softmax
from phasewatch.models.novelty import Novelty
from phasewatch.models.regrid import regrid
from phasewatch.models.store import load
from phasewatch.models.threads import one_thread

__all__ = ["Predictions", "Predictor", "check", "probabilities", "regrid"]

CUDA_TILE = 64

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a model says of n patterns.

    Attributes
    ----------
    probability
        (n, n_classes) float32, in the order of the card's classes.
    novelty
        (n,) float32: 0 is the middle of the training range, 1 its edge, more is outside.
    memory
        (m, n_features) float32, m at most the card's context: of the last patterns, oldest first,
        for the call with those that follow them. None if the model has no context.
    """

    probability: Float32
    novelty: Float32
    memory: Float32 | None = None


class Predictor:
    """A trained network, ready to be called on patterns.

    Parameters
    ----------
    net, card, novelty
        As `phasewatch.models.store.load` returns them.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``: CUDA where there is one.
    """

    def __init__(
        self, net: nn.Module, card: Card, novelty: Novelty, *, device: str = "auto"
    ) -> None:
        self._context = getattr(net, "context", 0)
        if card.context != self._context:
            raise ModelError(f"context: the card has {card.context}, the network {self._context}")
        self.card = card
        self.device = _device(device)
        self._net = net.to(self.device).eval()
        self._novelty = novelty
        on_cpu = self.device.type == "cpu"
        self._tile = 1 if on_cpu else CUDA_TILE
        # What is to be computed of each pattern, one beside the other.
        parts = cast(nn.ModuleList, self._net.parts) if self._context else [self._net]
        self._parts = [self._fastest(part, on_cpu) for part in parts]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without the kernels, which are made anew there."""
        again = partial(Predictor, device=str(self.device))
        return again, (self._net, self.card, self._novelty)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> "Predictor":
        """Read the model in `folder`."""
        return cls(*load(folder), device=device)

    def __call__(
        self, patterns: Float32 | torch.Tensor, earlier: Float32 | None = None
    ) -> Predictions:
        """Classify `patterns` (n, n_points), an array or a tensor; empty (NaN) bins are bridged.

        Parameters
        ----------
        patterns
            Of a model with context, one after the other in the order of the series.
        earlier
            `Predictions.memory` of the patterns before; None at the start of a series.

        Raises
        ------
        ModelError
            Wrong shape, a pattern that cannot be used (`phasewatch.models.gaps.fault`), or one on
            which the network overflows. Nothing is kept of a call that raises.
        """
        if not isinstance(patterns, torch.Tensor):
            patterns = np.asarray(patterns)
        if patterns.ndim != 2 or patterns.shape[1] != self.card.axis.n:
            raise ModelError(
                f"patterns: shape {tuple(patterns.shape)}, not (n, {self.card.axis.n})"
            )
        whole: Float32 | torch.Tensor
        if isinstance(patterns, torch.Tensor):
            whole = on_device.bridge(patterns)
            novelty = on_device.novelty(self._novelty, whole).cpu().numpy()
        else:
            whole = bridged = bridge(patterns)
            novelty = self._novelty(bridged)
        memory = None
        found = np.concatenate([part(whole) for part in self._parts], axis=1)
        if self._context:
            found, memory = self._follow(found, earlier)
        elif earlier is not None:
            raise ModelError("earlier: the model has no context; None is what it takes")
        probability = np.empty((len(found), len(self.card.classes)), np.float32)
        softmax(found, self.card.temperature, probability)
        if not np.isfinite(probability).all():
            bad = int(np.isfinite(probability).all(axis=1).argmin())
            raise ModelError(f"pattern {bad}: the network gives no finite value for it")
        return Predictions(probability, novelty, memory)

    def _follow(self, features: Float32, earlier: Float32 | None) -> tuple[Float32, Float32]:
        """Return the logits of the patterns with `features` (n, E), and their memory."""
        if earlier is None:
            earlier = features[:0]
        shape = np.shape(earlier)
        if len(shape) != 2 or shape[0] > self._context or shape[1] != features.shape[1]:
            raise ModelError(
                f"earlier: shape {shape}, not (m, {features.shape[1]}) with m at most "
                f"{self._context}"
            )
        held = np.concatenate([earlier, features]).astype(np.float32, copy=False)
        parts = windows(torch.from_numpy(held), first=len(earlier), context=self._context)
        follow = cast(Callable[[torch.Tensor], torch.Tensor], self._net.follow)
        logits = [self._by_torch(follow, part) for part in parts]
        none = np.empty((0, len(self.card.classes)), np.float32)
        return np.concatenate(logits) if logits else none, held[-self._context :].copy()

    def _fastest(self, net: nn.Module, on_cpu: bool) -> Callable[[Float32 | torch.Tensor], Float32]:
        """Return `net` as a function of bridged patterns (n, n_points)."""
        forward = compiled(net, self.card.axis.n) if on_cpu else None
        if forward is None:
            return partial(self._by_torch, net)
        return lambda whole: forward(
            whole.cpu().numpy() if isinstance(whole, torch.Tensor) else whole
        )

    def _by_torch(
        self, net: Callable[[torch.Tensor], torch.Tensor], rows: Float32 | torch.Tensor
    ) -> Float32:
        """Return what `net` makes of each of `rows` (n, ...): (n, k)."""
        # Torch and numpy allocate the tile alike for every pattern, so that kernels which look at
        # the alignment of their input take the same path for all.
        rows = torch.as_tensor(rows)
        shape = (self._tile, *rows.shape[1:])
        tile = torch.zeros(shape, dtype=torch.float32, device=rows.device)
        found = []
        with one_thread(), torch.inference_mode():
            for first in range(0, max(len(rows), 1), self._tile):
                part = rows[first : first + self._tile]
                tile[: len(part)] = part
                tile[len(part) :] = 0
                found.append(net(tile.to(self.device))[: len(part)].float().cpu().numpy())
        return np.concatenate(found)


def windows(features: torch.Tensor, *, first: int, context: int) -> Iterator[torch.Tensor]:
    """Give the windows of the patterns `first` and later, in order, equally long ones at once.

    Parameters
    ----------
    features
        (m, E), of consecutive patterns.

    Yields
    ------
    torch.Tensor
        (k, t, E), views: k windows of t = min(i, context) + 1 patterns, which end with pattern i.
    """
    while first < len(features):
        t = min(first, context) + 1
        end = len(features) if t > context else first + 1
        yield features[first + 1 - t : end].unfold(0, t, 1).transpose(1, 2)
        first = end


def probabilities(logits: torch.Tensor) -> Float32:
    """Turn logits (n, 1) or (n, n_classes) into probabilities (n, n_classes) float32.

    One logit z is that of the second of two classes: ``p = (sigmoid(-z), sigmoid(z))``; several
    give their softmax.
    """
    if logits.shape[1] == 1:
        p = torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    else:
        p = torch.softmax(logits, dim=1)
    result: Float32 = p.float().cpu().numpy()
    return result


def eager(net: nn.Module, patterns: Float32) -> Float32:
    """Return the probabilities (n, n_classes) by torch, all `patterns` (n, n_points) in one batch.

    What a user would write; the last bits depend on the batch. With context, a whole series.
    """
    x = torch.from_numpy(patterns)
    with torch.inference_mode():
        if context := getattr(net, "context", 0):
            parts = windows(net.embed(x), first=0, context=context)
            return probabilities(torch.cat([net.follow(part) for part in parts]).double())
        return probabilities(net(x).double())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ModelError(f"device {name!r} is not known: auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)
