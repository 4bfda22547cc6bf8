"""What comes out of training, for architectures that are not trained by gradient on patterns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted network.

    Attributes
    ----------
    net
        Maps patterns (n, n_points) to logits.
    options
        What the architecture's ``build`` needs to make a network that its weights fit into.
    epochs, loss
        Steps that were run, and the loss at the end.
    notes
        Figures for the card: weights of bins, variance kept.
    """

    net: "nn.Module"
    options: dict[str, Any]
    epochs: int
    loss: float
    notes: dict[str, Any] = field(default_factory=dict)
