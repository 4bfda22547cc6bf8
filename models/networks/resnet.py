"""The multi-scale residual network of Sun (2023), section 5.1, after Liu et al.

    LayerNorm(N) -> Conv1d 1 -> 64, kernel 7, stride 2 -> BatchNorm -> ReLU -> MaxPool 5, stride 2
    -> three streams side by side, of kernels 3, 5 and 7; each three residual blocks, 64 -> 64 -> 64
       -> 8 channels, every one of stride 2, and an average over windows of an eighth of the length
    -> their sum, flat (F) -> LayerNorm(F) -> Linear to the logits

    block: y = ReLU(Conv_2(ReLU(Conv_1(x))) + Conv_1x1(x)), each convolution with BatchNorm

F = 888 at 4023 points. All convolutions of a stream are padded by half their kernel, so that a
block's two paths are equally long and centred on the same points whatever the kernel; the published
ones are padded by 1, and the shortcut is cropped at one end for kernels 5 and 7. The published
number of parameters, 2,354,535, counts a Linear 4023 -> 512 (2,060,288) that is never called; it is
not here, which leaves 294,247.

Weights of convolutions start as He's (normal, variance 2 / fan-out; He et al. 2015,
arXiv:1502.01852), those of the last layer as N(0, 0.05).
"""

from itertools import pairwise

import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.registry import n_outputs

NOTE = (
    "resnet: the 2,354,535 parameters of the thesis, at 4023 points and 2 classes, count a "
    "Linear(4023, 512) of 2,060,288 that is never called; it is left out, which leaves 294,247"
)
KERNELS = (3, 5, 7)
WIDTHS = (64, 64, 64, 8)
SHORTEST = 69  # points that leave 3, the smallest kernel, after the last block


def build(*, n_points: int, n_classes: int) -> nn.Module:
    """Make the network: patterns (n, n_points) to logits (n, 1) or (n, n_classes)."""
    if n_points < SHORTEST:
        raise ModelError(f"resnet: n_points={n_points} is too short; at least {SHORTEST}")
    length = ((n_points - 1) // 2 + 1 - 3) // 2 + 1
    for _ in pairwise(WIDTHS):
        length = (length - 1) // 2 + 1
    window = -(-length // 8)
    features = WIDTHS[-1] * (length - window + 1)
    net = nn.Sequential(
        nn.LayerNorm(n_points),
        nn.Unflatten(1, (1, n_points)),
        nn.Conv1d(1, WIDTHS[0], 7, stride=2, padding=3, bias=False),
        nn.BatchNorm1d(WIDTHS[0]),
        nn.ReLU(),
        nn.MaxPool1d(5, stride=2, padding=1),
        Streams([_stream(kernel, window) for kernel in KERNELS]),
        nn.Flatten(),
        nn.LayerNorm(features),
        nn.Linear(features, n_outputs(n_classes)),
    )
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(net[-1].weight, std=0.05)
    return net


class Streams(nn.ModuleList):
    """The sum of what several layers make of the same (n, channels, length)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum."""
        return torch.stack([stream(x) for stream in self]).sum(dim=0)


class Block(nn.Module):
    """A residual block: (n, width_in, length) to (n, width_out, half the length)."""

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.path = nn.Sequential(
            nn.Conv1d(width_in, width_out, kernel, stride=2, padding=half, bias=False),
            nn.BatchNorm1d(width_out),
            nn.ReLU(),
            nn.Conv1d(width_out, width_out, kernel, padding=half, bias=False),
            nn.BatchNorm1d(width_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv1d(width_in, width_out, 1, stride=2, bias=False), nn.BatchNorm1d(width_out)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum of path and shortcut."""
        return torch.relu(self.path(x) + self.shortcut(x))


def _stream(kernel: int, window: int) -> nn.Sequential:
    blocks = [Block(*widths, kernel) for widths in pairwise(WIDTHS)]
    return nn.Sequential(*blocks, nn.AvgPool1d(window, stride=1))
