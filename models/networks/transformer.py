"""The transformer of Sun (2023), section 5.2: 1,830,511 parameters at 4023 points.

    each pattern:  LayerNorm(N) -> Linear N -> 256 -> LayerNorm -> ReLU
    a window:      + sinusoidal code of age -> 2 encoder layers -> last pattern's -> Linear

    layer: r = LayerNorm_1(x + attention(x)) of 8 heads, then
           y = LayerNorm_2(r + W_2 ReLU(W_1 r)) of width 256

which is `FeedForward` after the first sum. The published predictions come from one sequence of all
patterns of a series, so that each depends on later ones and on how many there are; here a window
ends with the pattern that is classified. It holds at most ``context`` + 1 patterns, by default 31,
the length of the thesis's training sequences. There, spectra were in a scrambled order.

Weights start as Xavier's, the first layer's as He's, biases 0.
"""

import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.networks.attention import FeedForward, attend, attention, maps
from phasewatch.models.networks.sequence import (
    check_context,
    check_window,
    embedding,
    head,
    positions,
)
from phasewatch.models.registry import n_outputs

WIDTH, HEADS = 256, 8
CONTEXT = 30


def build(*, n_points: int, n_classes: int, context: int = CONTEXT) -> nn.Module:
    """Make the network: windows (n, t <= context + 1, n_points) to logits of the last pattern."""
    if n_points < 2:
        raise ModelError(f"transformer: a pattern of n_points={n_points} has no shape; at least 2")
    return Transformer(n_points, n_outputs(n_classes), check_context("transformer", context))


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.temporal = attention(WIDTH, HEADS)
        self.feed_forward = FeedForward(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, last: int) -> torch.Tensor:
        """Map tokens (n, t, 256) to what becomes of the `last` of them, (n, last, 256)."""
        own = x[:, -last:]
        return self.feed_forward(own + attend(self.temporal, own, x))


class Transformer(nn.Module):
    """See the module; `parts` make the features of a pattern."""

    positions: torch.Tensor

    def __init__(self, n_points: int, outputs: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.parts = nn.ModuleList([embedding(n_points, WIDTH)])
        self.register_buffer("positions", positions(context + 1, WIDTH), persistent=False)
        self.first, self.second = Layer(), Layer()
        self.head = head(WIDTH, outputs)

    def embed(self, patterns: torch.Tensor) -> torch.Tensor:
        """Map patterns (n, n_points) to features (n, 256)."""
        return self.parts[0](patterns)

    def follow(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of features (n, t, 256) to the logits of their last patterns."""
        t = check_window(windows, self.context)
        x = self.first(windows + self.positions[-t:], last=t)
        return self.head(self.second(x, last=1)[:, 0])

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of patterns (n, t, n_points) to the logits of their last patterns."""
        check_window(windows, self.context)
        return self.follow(self.embed(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]))

    def attention(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what patterns of windows (n, t, n_points) look at, oldest first.

        ``temporal`` (n, 8, t, t) is the last layer's, of which only row t - 1 reaches the logits;
        ``temporal_first`` (n, 8, t, t) the first one's. Rows sum to 1.
        """
        t = check_window(windows, self.context)
        features = self.embed(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        x = features + self.positions[-t:]
        return {
            "temporal": maps(self.second.temporal, self.first(x, last=t)),
            "temporal_first": maps(self.first.temporal, x),
        }
