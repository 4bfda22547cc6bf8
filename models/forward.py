"""The forward pass of a network on one CPU core, faster than torch's and the same in any batch.

`compiled` translates a network into a row of kernels (`phasewatch.models.kernels`) if it is made of
layers that `LAYERS` knows; that table alone decides. Batch normalisation is folded into the weights
before it, rectifier and pooling into the kernel. A convolution's values are stored position by
position, (length, channels), where torch has (channels, length). Attention stays with torch, one
pattern at a time.

Another kind of layer is one more line in the table: a function that takes the layer, the layers
after it (from which it removes those whose work it does as well) and the shape of one pattern, and
returns a step and the new shape. A block with branches is such a layer; its branches are rows.
"""

import math
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phasewatch.models import kernels
from phasewatch.models.networks.attention import FeedForward
from phasewatch.models.networks.conv_sc import Fusion
from phasewatch.models.threads import one_thread

Float32 = NDArray[np.float32]
Layer = TypeVar("Layer", bound=nn.Module)
Shape = tuple[int, ...]  # of one pattern, as torch has it: (features,) or (channels, length)
Step = Callable[[Float32, int, Float32], None]  # n patterns from a flat array to another

# Patterns that go through all layers together: as many as keep the widest layer within 1 MB, which
# a second-level cache holds, but not more than a batch has. 4 for the CNN at 4023 points, whose
# first convolution gives 0.26 MB for each; 64 for the FCNN, which reads 4.8 MB of weights a tile.
CACHE, MOST = 2**20, 64


class UnknownLayerError(Exception):
    """A layer that is not translated."""


class Row:
    """Steps one after the other; itself a step."""

    def __init__(self, layers: Sequence[nn.Module], shape: Shape) -> None:
        self._steps: list[tuple[Step, int]] = []
        rest = list(layers)
        while rest:
            layer = rest.pop(0)
            if type(layer) is nn.Sequential:
                rest[:0] = layer
                continue
            if type(layer) not in LAYERS:
                raise UnknownLayerError
            step, shape = LAYERS[type(layer)](layer, rest, shape)
            if step is not None:
                self._steps.append((step, math.prod(shape)))
        _require(bool(self._steps))
        self.shape = shape
        self.widest = max(size for _, size in self._steps)
        self._between = [kernels.aligned(0)] * 2

    def __call__(self, x: Float32, n: int, y: Float32) -> None:
        """Set `y` to what becomes of the `n` patterns in `x`, both flat."""
        if self._between[0].size < n * self.widest:
            self._between = [kernels.aligned(n * self.widest) for _ in range(2)]
        last = len(self._steps) - 1
        for i, (step, _) in enumerate(self._steps):
            out = y if i == last else self._between[i % 2]
            step(x, n, out)
            x = out


class Forward:
    """A translated network: patterns (n, n_points) float32 to logits (n, outputs) float32."""

    def __init__(self, row: Row) -> None:
        _require(len(row.shape) == 1)
        self._row, (self._outputs,) = row, row.shape
        self._tile = min(max(CACHE // (4 * row.widest), 1), MOST)
        self._lock = Lock()  # the row's memory is there once

    def __call__(self, patterns: Float32) -> Float32:
        """Return the logits of `patterns`, contiguous and writeable (or it is compiled again)."""
        logits = np.empty((len(patterns), self._outputs), np.float32)
        with self._lock:
            for first in range(0, len(patterns), self._tile):
                part = slice(first, first + self._tile)
                x = patterns[part]
                self._row(x.reshape(-1), len(x), logits[part].reshape(-1))
        return logits


def compiled(net: nn.Module, n_points: int) -> Forward | None:
    """Translate `net`, in evaluation mode and as it is now; None if a layer is not known."""
    if type(net).forward is not nn.Sequential.forward:
        return None
    try:
        return Forward(Row(list(cast(nn.Sequential, net)), (n_points,)))
    except UnknownLayerError:
        return None


def _linear(layer: nn.Linear, rest: list[nn.Module], shape: Shape) -> tuple[Step, Shape]:
    _require(shape == (layer.in_features,))
    w, b = _folded(layer, rest)
    lowest = _rectified(rest)
    packed, width, outputs = kernels.pack(w.T, b), layer.in_features, layer.out_features

    def step(x: Float32, n: int, y: Float32) -> None:
        kernels.product(x, 1, 0, n, width, *packed, outputs, 1, lowest, y)

    return step, (outputs,)


def _conv(layer: nn.Conv1d, rest: list[nn.Module], shape: Shape) -> tuple[Step, Shape]:
    _require(len(shape) == 2 and shape[0] == layer.in_channels)
    _require((layer.padding, layer.dilation, layer.groups) == ((0,), (1,), 1))
    (channels, length), outputs = shape, layer.out_channels
    (kernel,), (stride,) = layer.kernel_size, layer.stride
    w, b = _folded(layer, rest)
    lowest, pool = _rectified(rest), _pooled(rest)
    packed = kernels.pack(w.transpose(2, 1, 0).reshape(-1, outputs), b)
    rows, item, hop = (length - kernel) // stride + 1, length * channels, stride * channels
    _require(rows >= pool)

    def step(x: Float32, n: int, y: Float32) -> None:
        kernels.product(x, n, item, rows, hop, *packed, outputs, pool, lowest, y)

    return step, (outputs, rows // pool)


def _layer_norm(layer: nn.LayerNorm, rest: list[nn.Module], shape: Shape) -> tuple[Step, Shape]:
    _require(tuple(layer.normalized_shape) == shape and len(shape) == 1)
    ones = torch.ones(shape)
    weight = _array(ones if layer.weight is None else layer.weight).astype(np.float32)
    bias = _array(0 * ones if layer.bias is None else layer.bias).astype(np.float32)
    lowest = _rectified(rest)

    def step(x: Float32, n: int, y: Float32) -> None:
        kernels.layer_norm(x, n, weight, bias, layer.eps, lowest, y)

    return step, shape


def _unflatten(layer: nn.Unflatten, rest: list[nn.Module], shape: Shape) -> tuple[None, Shape]:
    new = tuple(int(k) for k in layer.unflattened_size)
    _require(layer.dim == 1 and new == (1, *shape))
    return None, new


def _flatten(layer: nn.Flatten, rest: list[nn.Module], shape: Shape) -> tuple[Step | None, Shape]:
    _require((layer.start_dim, layer.end_dim) == (1, -1))
    flat = (math.prod(shape),)
    if len(shape) == 1 or 1 in shape:
        return None, flat
    channels, length = shape

    def step(x: Float32, n: int, y: Float32) -> None:
        kernels.channels_first(x, n, length, channels, y)

    return step, flat


def _one_by_one(layer: nn.Module, rest: list[nn.Module], shape: Shape) -> tuple[Step, Shape]:
    """Leave `layer` to torch, one pattern at a time on one thread."""
    with torch.inference_mode():
        new = tuple(layer(torch.zeros(1, *shape)).shape[1:])
    _require(len(new) == 1)
    stored = shape[::-1]

    def step(x: Float32, n: int, y: Float32) -> None:
        patterns, found = (torch.from_numpy(a) for a in (x, y))
        size, width = math.prod(shape), new[0]
        with one_thread(), torch.inference_mode():
            # Torch's own memory, so that kernels which look at the alignment do the same for all.
            here = torch.empty(1, *stored)
            for i in range(n):
                here[0] = patterns[i * size : (i + 1) * size].view(stored)
                found[i * width : (i + 1) * width] = layer(here.transpose(1, -1))[0]

    return step, new


LAYERS: dict[type[nn.Module], Callable[..., tuple[Step | None, Shape]]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.Unflatten: _unflatten,
    nn.Flatten: _flatten,
    FeedForward: _one_by_one,
    Fusion: _one_by_one,
}


def _require(fits: bool) -> None:
    if not fits:
        raise UnknownLayerError


def _next(rest: list[nn.Module], kind: type[Layer]) -> Layer | None:
    """Take the next layer off `rest` if it is of this kind."""
    return cast(Layer, rest.pop(0)) if rest and type(rest[0]) is kind else None


def _array(parameter: torch.Tensor | None) -> NDArray[np.float64]:
    _require(parameter is not None)
    return cast(torch.Tensor, parameter).detach().cpu().double().numpy()


def _folded(
    layer: nn.Linear | nn.Conv1d, rest: list[nn.Module]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and biases, a batch normalisation that follows folded in."""
    w = _array(layer.weight)
    b = np.zeros(len(w)) if layer.bias is None else _array(layer.bias)
    if (norm := _next(rest, nn.BatchNorm1d)) is not None:
        _require(norm.track_running_stats and norm.affine)
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        w = w * scale.reshape(-1, *[1] * (w.ndim - 1))
        b = (b - _array(norm.running_mean)) * scale + _array(norm.bias)
    return w, b


def _rectified(rest: list[nn.Module]) -> float:
    """Return the least value that comes out, after a rectifier if one follows."""
    return -math.inf if _next(rest, nn.ReLU) is None else 0.0


def _pooled(rest: list[nn.Module]) -> int:
    """Return the positions of which the largest is taken, 1 if no such layer follows."""
    if (layer := _next(rest, nn.MaxPool1d)) is None:
        return 1
    size = layer.kernel_size
    _require(isinstance(size, int) and size <= kernels.MOST_POOLED)
    _require((layer.stride, layer.padding, layer.dilation) == (size, 0, 1))
    _require(not layer.ceil_mode and not layer.return_indices)
    return cast(int, size)
