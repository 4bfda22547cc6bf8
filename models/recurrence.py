"""The LSTM's windows on one CPU core, many at a time with the bits of each alone.

    (i, f, g, o) of W_ih x + b_ih + W_hh h + b_hh = z,   i, f, o: s(z),   g: tanh(z)
    c <- f c + i g,   h <- o tanh(c)

with s(z) = 1 / (1 + exp(-z)) = (1 + tanh(z / 2)) / 2, so that one tanh, numpy's vectorised one,
does for all gates; the halves are in the weights.

The matrix products are `phasewatch.models.kernels.product`'s, whose rows do not know of each other,
so that windows share the reading of 12.6 MB of weights. The first layer's W_ih x is computed once
for each pattern, not once for each window that it is in.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from phasewatch.models import kernels
from phasewatch.models.forward import Forward, Row
from phasewatch.models.networks.lstm import WIDTH, Lstm

Float32 = NDArray[np.float32]

MOST = 64  # windows that go together


def compiled_follow(net: nn.Module) -> Callable[..., Float32] | None:
    """Return what gives the logits of windows, called as `Recurrence` is; None if not an LSTM."""
    if type(net) is not Lstm:
        return None
    recurrence, tail = Recurrence(net.recurrence), Forward(Row([net.norm, net.head], (WIDTH,)))
    return lambda features, **which: tail(recurrence(features, **which))


class Recurrence:
    """`lstm`, batch first and from zero states, as a function of windows of a series."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._width, self._layers = lstm.hidden_size, []
        for k in range(lstm.num_layers):
            w_ih, w_hh, b_ih, b_hh = (
                tensor.detach().cpu().double().numpy() for tensor in _parameters(lstm, k)
            )
            half = np.repeat([0.5, 0.5, 1.0, 0.5], self._width)
            of_input = kernels.pack(w_ih.T * half, (b_ih + b_hh) * half)
            self._layers.append((of_input, kernels.pack(w_hh.T * half, 0 * half)))

    def __call__(self, features: Float32, *, first: int, context: int) -> Float32:
        """Return the last output (k, hidden) of the windows that end with pattern `first` and on.

        Parameters
        ----------
        features
            (m, E) contiguous, of consecutive patterns; k = m - first.
        context
            A window holds at most so many patterns before its last one.
        """
        begin = max(first - context, 0)
        inputs = self._product(features[begin:], self._layers[0][0])
        ends = np.arange(first, len(features)) - begin
        found = [np.empty((0, self._width), np.float32)]
        while len(ends):
            t = min(int(ends[0]) + 1, context + 1)
            # Windows grow at the start of a series; the whole ones go together.
            together = MOST if t > context else 1
            steps = ends[:together, None] + np.arange(1 - t, 1)
            found.append(self._run(inputs[steps.T.reshape(-1)].reshape(t, len(steps), -1)))
            ends = ends[together:]
        return np.concatenate(found)

    def _run(self, inputs: Float32) -> Float32:
        """Return the last output of windows, given the first layer's W_ih x + b (t, k, 4 H)."""
        t, n, _ = inputs.shape
        for layer, (_, of_state) in enumerate(self._layers):
            h, c = np.zeros((2, n, self._width), np.float32)
            states = np.empty((t, n, self._width), np.float32)
            for step in range(t):
                z = self._product(h, of_state)
                z += inputs[step]
                h = _cells(z.reshape(n, 4, -1), c, states[step])
            if layer + 1 < len(self._layers):
                rows = states.reshape(t * n, self._width)
                inputs = self._product(rows, self._layers[layer + 1][0]).reshape(t, n, -1)
        return h

    def _product(self, x: Float32, packed: tuple[Float32, Float32]) -> Float32:
        (n, depth), outputs = x.shape, 4 * self._width
        y = np.empty((n, outputs), np.float32)
        flat = x.reshape(-1)
        kernels.product(flat, 1, 0, n, depth, *packed, outputs, 1, -math.inf, y.reshape(-1))
        return y


def _cells(z: Float32, c: Float32, h: Float32) -> Float32:
    """Change the state `c` (n, width) by `z` (n, 4, width); set `h` to the output and return it."""
    np.tanh(z, out=z)
    for gate in (0, 1, 3):
        z[:, gate] += 1
        z[:, gate] *= 0.5
    c *= z[:, 1]
    z[:, 0] *= z[:, 2]
    c += z[:, 0]
    np.tanh(c, out=h)
    h *= z[:, 3]
    return h


def _parameters(lstm: nn.LSTM, layer: int) -> tuple[Tensor, ...]:
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return tuple(getattr(lstm, f"{kind}_l{layer}") for kind in kinds)
