"""The LSTM network of Sun (2023), section 5.2: 6,273,391 parameters at 4023 points.

    each pattern:  LayerNorm(N) -> Linear N -> 512 -> LayerNorm -> ReLU
    a window:      2 LSTM layers of 512, from zero states -> last output -> LayerNorm -> Linear

The thesis trains on sequences of 51 patterns and predicts on sequences of one; here both see
windows of at most ``context`` + 1 patterns. The default of 15 earlier ones is for speed: the
recurrence begins anew for each pattern, so that time goes with the window.

The first layer's weights start as He's, the last one's as Xavier's; those of the recurrence as
Xavier's for its input and orthogonal for its state; biases 0 but those of the forget gates, which
are 1 so that the state is kept at first (Jozefowicz et al. 2015, ICML).
"""

import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.networks.sequence import check_context, check_window, embedding, head
from phasewatch.models.registry import n_outputs

WIDTH = 512
CONTEXT = 15


def build(*, n_points: int, n_classes: int, context: int = CONTEXT) -> nn.Module:
    """Make the network: windows (n, t <= context + 1, n_points) to logits of the last pattern."""
    if n_points < 2:
        raise ModelError(f"lstm: a pattern of n_points={n_points} has no shape; at least 2")
    return Lstm(n_points, n_outputs(n_classes), check_context("lstm", context))


class Lstm(nn.Module):
    """See the module; `parts` make the features of a pattern."""

    def __init__(self, n_points: int, outputs: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.parts = nn.ModuleList([embedding(n_points, WIDTH)])
        self.recurrence = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = head(WIDTH, outputs)
        for name, parameter in self.recurrence.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
            for gate in parameter.detach().chunk(4):  # input, forget, cell, output
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter.detach().chunk(4)[1])

    def embed(self, patterns: torch.Tensor) -> torch.Tensor:
        """Map patterns (n, n_points) to features (n, 512)."""
        return self.parts[0](patterns)

    def follow(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of features (n, t, 512) to the logits of their last patterns."""
        check_window(windows, self.context)
        states, _ = self.recurrence(windows)
        return self.head(self.norm(states[:, -1]))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows of patterns (n, t, n_points) to the logits of their last patterns."""
        check_window(windows, self.context)
        return self.follow(self.embed(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]))
