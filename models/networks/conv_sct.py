"""`conv_sc` with temporal attention beside it, Sun (2023), 5.2: 1,953,353 parameters at 4023.

    each pattern:  u = LayerNorm(Linear N -> 256),   v = all of conv-sc up to its last convolution
    a window:      u_i + sinusoidal code of age: U (t, 256)
                   -> U + attention(U) of 8 heads -> last pattern's -> Conv1d 1 -> 1, kernel 1
                   -> BatchNorm -> ReLU -> + v of the last pattern
                   -> FeedForward of hidden width 1024 -> Linear to the logits

The features of a pattern are u and v. The thesis fixes the temporal branch by its number of
parameters only; that its LayerNorm belongs to the embedding is our reading. As for `transformer`, a
window ends with the pattern that is classified and holds at most ``context`` + 1, by default 31.

Weights start as in `conv_sc`; the temporal embedding's as Xavier's, and its convolution's at 1.
"""

import torch
from torch import nn

from phasewatch.models.networks.attention import FeedForward, attend, attention, maps
from phasewatch.models.networks.conv_sc import HIDDEN, WIDTH, branch, branch_attention
from phasewatch.models.networks.sequence import check_context, check_window, head, positions
from phasewatch.models.registry import n_outputs

NOTE = "conv-sct: the feed-forward, which the published network seems not to use, is live"
HEADS = 8
CONTEXT = 30


def build(*, n_points: int, n_classes: int, context: int = CONTEXT) -> nn.Module:
    """Make the network: windows (n, t <= context + 1, n_points) to logits of the last pattern."""
    return ConvSCT(n_points, n_outputs(n_classes), check_context("conv-sct", context))


class ConvSCT(nn.Module):
    """See the module; `parts` make the features of a pattern, u and v one after the other."""

    positions: torch.Tensor

    def __init__(self, n_points: int, outputs: int, context: int) -> None:
        super().__init__()
        self.context = context
        convolutional = branch("conv-sct", n_points)
        embedding = nn.Sequential(head(n_points, WIDTH), nn.LayerNorm(WIDTH))
        self.parts = nn.ModuleList([embedding, convolutional])
        self.register_buffer("positions", positions(context + 1, WIDTH), persistent=False)
        self.temporal = attention(WIDTH, HEADS)
        self.conv4 = nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1), nn.ReLU())
        nn.init.ones_(self.conv4[0].weight)
        nn.init.zeros_(self.conv4[0].bias)
        self.feed_forward = FeedForward(WIDTH, HIDDEN)
        self.head = head(WIDTH, outputs)

    def embed(self, patterns: torch.Tensor) -> torch.Tensor:
        """Map patterns (n, n_points) to features (n, 512)."""
        return torch.cat([part(patterns) for part in self.parts], dim=1)

    def follow(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of features (n, t, 512) to the logits of their last patterns."""
        return self._join(windows[..., :WIDTH], windows[:, -1, WIDTH:])

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of patterns (n, t, n_points) to the logits of their last patterns.

        v is computed of the last ones only, since that of the others has no part in it.
        """
        return self._join(self._embedded(windows), self.parts[1](windows[:, -1]))

    def attention(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what windows (n, t, n_points) look at; rows sum to 1.

        ``temporal`` (n, 8, t, t): patterns, oldest first, of which only row t - 1 reaches the
        logits; ``spatial`` and ``channel`` of the last pattern, as in `conv_sc`.
        """
        u = self._embedded(windows)
        return {
            "temporal": maps(self.temporal, u + self.positions[-u.shape[1] :]),
            **branch_attention(self.parts[1], windows[:, -1]),
        }

    def _embedded(self, windows: torch.Tensor) -> torch.Tensor:
        check_window(windows, self.context)
        return self.parts[0](windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def _join(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        t = check_window(u, self.context)
        tokens = u + self.positions[-t:]
        last = tokens[:, -1:]
        temporal = self.conv4(last + attend(self.temporal, last, tokens))[:, 0]
        return self.head(self.feed_forward(temporal + v))
