"""Patterns to probabilities and novelty, the same bits for a pattern whatever batch it is in.

On a CPU the network is translated into kernels that sum in the same order whatever the batch
(`phasewatch.models.forward`). Where it cannot be, and on CUDA, torch runs it; its matrix products
round differently for different numbers of rows, so that it always sees a tile of the same shape: on
a CPU one pattern on one thread, on CUDA `CUDA_TILE` patterns, the last tile filled up with zeros.

Patterns that are already on a torch device stay there; they are bridged and their novelty is scored
by `phasewatch.models.device`, which rounds otherwise in the last bits.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a model says of n patterns.

    Attributes
    ----------
    probability
        (n, n_classes) float32, in the order of the card's classes.
    novelty
        (n,) float32: 0 is the middle of the training range, 1 its edge, more is outside.
    """

    probability: NDArray[np.float32]
    novelty: NDArray[np.float32]


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
        if card.context:
            raise ModelError(f"context: {card.context}: this predictor takes single patterns only")
        self.card = card
        self.device = _device(device)
        self._net = net.to(self.device).eval()
        self._novelty = novelty
        on_cpu = self.device.type == "cpu"
        self._forward = compiled(self._net, card.axis.n) if on_cpu else None
        self._tile = 1 if on_cpu else CUDA_TILE

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without the kernels, which are made anew there."""
        again = partial(Predictor, device=str(self.device))
        return again, (self._net, self.card, self._novelty)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> "Predictor":
        """Read the model in `folder`."""
        return cls(*load(folder), device=device)

    def __call__(self, patterns: NDArray[np.float32] | torch.Tensor) -> Predictions:
        """Classify `patterns` (n, n_points), an array or a tensor; empty (NaN) bins are bridged.

        Raises
        ------
        ModelError
            Wrong shape, a pattern that cannot be used (`phasewatch.models.gaps.fault`), or one on
            which the network overflows.
        """
        if not isinstance(patterns, torch.Tensor):
            patterns = np.asarray(patterns)
        if patterns.ndim != 2 or patterns.shape[1] != self.card.axis.n:
            raise ModelError(
                f"patterns: shape {tuple(patterns.shape)}, not (n, {self.card.axis.n})"
            )
        whole: NDArray[np.float32] | torch.Tensor
        if isinstance(patterns, torch.Tensor):
            whole = on_device.bridge(patterns)
            novelty = on_device.novelty(self._novelty, whole).cpu().numpy()
        else:
            whole = bridged = bridge(patterns)
            novelty = self._novelty(bridged)
        probability = self._probability(whole)
        if not np.isfinite(probability).all():
            bad = int(np.isfinite(probability).all(axis=1).argmin())
            raise ModelError(f"pattern {bad}: the network gives no finite value for it")
        return Predictions(probability, novelty)

    def _probability(self, whole: NDArray[np.float32] | torch.Tensor) -> NDArray[np.float32]:
        if self._forward is None:
            return self._by_torch(torch.as_tensor(whole))
        patterns = whole.cpu().numpy() if isinstance(whole, torch.Tensor) else whole
        logits = self._forward(patterns)
        probability = np.empty((len(patterns), len(self.card.classes)), np.float32)
        softmax(logits, self.card.temperature, probability)
        return probability

    def _by_torch(self, whole: torch.Tensor) -> NDArray[np.float32]:
        # Torch and numpy allocate the tile alike for every pattern, so that kernels which look at
        # the alignment of their input take the same path for all.
        shape = (self._tile, self.card.axis.n)
        tile = torch.zeros(shape, dtype=torch.float32, device=whole.device)
        probability = np.empty((len(whole), len(self.card.classes)), np.float32)
        with one_thread(), torch.inference_mode():
            for first in range(0, len(whole), self._tile):
                part = whole[first : first + self._tile]
                tile[: len(part)] = part
                tile[len(part) :] = 0
                logits = self._net(tile.to(self.device)).double() / self.card.temperature
                probability[first : first + len(part)] = probabilities(logits)[: len(part)]
        return probability


def probabilities(logits: torch.Tensor) -> NDArray[np.float32]:
    """Turn logits (n, 1) or (n, n_classes) into probabilities (n, n_classes) float32.

    One logit z is that of the second of two classes: ``p = (sigmoid(-z), sigmoid(z))``; several
    give their softmax.
    """
    if logits.shape[1] == 1:
        p = torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
    else:
        p = torch.softmax(logits, dim=1)
    result: NDArray[np.float32] = p.float().cpu().numpy()
    return result


def eager(net: nn.Module, patterns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities (n, n_classes) by torch, all `patterns` (n, n_points) in one batch.

    What a user would write; the last bits depend on the batch.
    """
    with torch.inference_mode():
        return probabilities(net(torch.from_numpy(patterns)).double())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ModelError(f"device {name!r} is not known: auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)
