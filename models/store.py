"""A model on disk: a folder with ``model.safetensors`` and ``card.json``.

The tensors are the network's, under ``net.``, and the statistics of its novelty score, under
``novelty.``. Nothing in the folder is executed when it is loaded.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor, from_numpy, nn

from phasewatch.models.card import CARD, WEIGHTS, Card, read_card, read_file
from phasewatch.models.errors import ModelError
from phasewatch.models.novelty import Novelty
from phasewatch.models.registry import create


def save(folder: str | Path, net: nn.Module, card: Card, novelty: Novelty) -> Card:
    """Write a model; return its card with the digest of the weights filled in.

    The card is written last, so that a folder with a card is whole.
    """
    folder = Path(folder)
    tensors = {f"net.{k}": v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    for name, array in novelty.arrays().items():
        tensors[f"novelty.{name}"] = from_numpy(np.ascontiguousarray(array))
    content = serialise(tensors)
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    return card


def load(folder: str | Path) -> tuple[nn.Module, Card, Novelty]:
    """Read a model: the network in evaluation mode, its card, its novelty statistics.

    Raises
    ------
    ModelError
        A file is missing or corrupt, or the card does not match the weights; names file and field.
    """
    folder = Path(folder)
    card = read_card(folder)
    content = read_file(folder / WEIGHTS)
    where = folder / WEIGHTS
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.sha256:
        raise ModelError(
            f"{folder / CARD}: sha256: {card.sha256 or 'empty'}, but {WEIGHTS} has {digest}"
        )
    try:
        tensors = parse(content)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{where}: not a safetensors file: {error}") from None
    try:
        net = create(
            card.architecture, n_points=card.axis.n, n_classes=len(card.classes), **card.options
        )
    except ModelError as error:
        raise ModelError(f"{folder / CARD}: {error}") from None
    _fill(net, _under("net.", tensors), folder)
    counted = n_parameters(net)
    if counted != card.n_parameters:
        raise ModelError(
            f"{folder / CARD}: n_parameters: {card.n_parameters}, but the network has {counted}"
        )
    try:
        novelty = Novelty.from_arrays(
            {k: v.numpy() for k, v in _under("novelty.", tensors).items()}
        )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    if len(novelty.mean) > card.axis.n:
        raise ModelError(
            f"{where}: novelty statistics of {len(novelty.mean)} points where the axis has "
            f"{card.axis.n}"
        )
    return net.eval(), card, novelty


def n_parameters(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in net.parameters())


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _fill(net: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    """Copy `tensors` into `net`; all must be there, with the shape and dtype the card implies."""
    own = net.state_dict()
    where = f"{folder / WEIGHTS}: architecture of {CARD} does not match"
    if odd := sorted(set(own) ^ set(tensors)):
        raise ModelError(f"{where}: tensor net.{odd[0]} is in only one of them")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise ModelError(
                f"{where}: tensor net.{name} is {tensor.dtype} {tuple(tensor.shape)}, not "
                f"{own[name].dtype} {tuple(own[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise ModelError(f"{folder / WEIGHTS}: tensor net.{name} is not finite throughout")
    net.load_state_dict(tensors)
