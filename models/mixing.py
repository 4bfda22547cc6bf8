"""Mixtures of labelled patterns: what a sample looks like while it transforms.

With a fraction x of it in the other phase, a sample diffracts as ``(1 - x) y_a + x y_b``, so a
mixture of patterns of two classes is what lies between them, and its class is that share of each
(mixup: Zhang et al. 2018, arXiv:1710.09412). Without it nothing that is labelled lies near the
boundary, and each network puts it elsewhere: on two simulated runs of (Mg0.2Fe0.8)O 33 and 76
frames off the CNN and the convolutional SC attention, with it 2 and 1.

Not with more classes: those in between are mixtures themselves, and half of one and half of the
next is still the first of them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


class Mixed(NamedTuple):
    """Windows one after the other, and the share (n, n_classes) float32 of each class in them."""

    patterns: Float32
    share: Float32


def mix(
    patterns: Float32,
    length: Int64,
    label: Int64,
    *,
    n_classes: int,
    portion: float,
    rng: np.random.Generator,
) -> Mixed:
    """Mix about a `portion` of the windows of two classes with the end of one of the other.

    A window for which there is none at least as long stays as it is. (Not only those as long: the
    first class of a short run has only windows that begin with the run, the last only whole ones.)

    Parameters
    ----------
    patterns
        (sum of `length`, n_points), n windows one after the other.
    length, label
        (n,) patterns in each; the class of its last one.
    """
    share = np.eye(n_classes, dtype=np.float32)[label]
    if n_classes != 2:
        return Mixed(patterns, share)
    end = np.cumsum(length)
    out = patterns.copy()
    for i in np.flatnonzero(rng.random(len(label)) < portion):
        others = np.flatnonzero((label != label[i]) & (length >= length[i]))
        if len(others):
            j, x = int(rng.choice(others)), np.float32(rng.random())
            of_i, of_j = (slice(end[k] - length[i], end[k]) for k in (i, j))
            out[of_i] = (1 - x) * patterns[of_i] + x * patterns[of_j]
            share[i, [label[i], label[j]]] = 1 - x, x
    return Mixed(out, share)
