"""Replicas of labelled patterns: what else the same phase could have looked like.

A replica of a pattern y(u), u from 0 to 1 along its axis, is

    y(u + a + b (u - 1/2)) exp(w(u)) + s e

a, b: a shift and a stretch of the axis (strain, thermal expansion, a sample out of place);
w: a smooth warp of magnitude (texture, background, absorption); e: white noise of unit variance;
s: the pattern's own noise times a factor. a, b, log of that factor and the coefficients of w are
drawn per replica. Scale is left out: networks begin by normalising it away.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strength of each part.

    Attributes
    ----------
    shift, stretch
        Standard deviations of a and b, as fractions of the axis' length.
    warp
        Standard deviation of w.
    knots
        Number of cosines in w: cos(pi k u), k = 0 .. knots - 1.
    noise
        The factor on the pattern's own noise is log-uniform from 1/4 of this to this.
    """

    shift: float = 1e-3
    stretch: float = 4e-3
    warp: float = 0.3
    knots: int = 6
    noise: float = 2.0


def replicate(
    patterns: Float32,
    rng: np.random.Generator,
    how: Augmentation,
    *,
    group: NDArray[np.int64] | None = None,
    level: NDArray[np.float64] | None = None,
) -> Float32:
    """Return one replica of each pattern.

    Parameters
    ----------
    patterns
        (n, n_points) float32, free of empty bins.
    group
        (n,) int64, rising from 0 by 1: patterns of one group, such as the window of a sequence,
        have all but e in common. Without it each is a group of its own.
    level
        (n,) the `noise_level` of each, where it is known; finding it takes as long as all else.
    """
    n, n_points = patterns.shape
    group = np.arange(n) if group is None else group
    k = int(group[-1]) + 1 if n else 0
    index = np.arange(n_points)
    u = np.linspace(0, 1, n_points)
    strength = rng.random((k, 1))
    a, b = (strength * rng.normal(0, (how.shift, how.stretch), (k, 2))).T
    cosines = np.cos(np.pi * np.arange(how.knots)[:, None] * u)
    coefficients = strength * rng.normal(0, how.warp / np.sqrt(how.knots), (k, how.knots))
    factor = how.noise * np.power(4.0, -rng.random(k))
    noise = rng.standard_normal((n, n_points), np.float32)
    moved = index + (n_points - 1) * (a[:, None] + b[:, None] * (u - 0.5))
    warp = np.exp(coefficients @ cosines)
    out = np.empty((n, n_points), np.float32)
    for i, (g, y) in enumerate(zip(group, patterns, strict=True)):
        s = noise_level(y) if level is None else level[i]
        out[i] = np.interp(moved[g], index, y) * warp[g]
        out[i] += factor[g] * s * noise[i]
    return out


def noise_level(pattern: Float32) -> float:
    """Return the standard deviation of the noise of `pattern` (n_points,).

    From its second differences d: ``median |d| / (0.6745 sqrt 6)``, of which peaks, being narrow
    and few, change little.
    """
    d = np.diff(pattern.astype(np.float64), n=2)
    return float(np.median(np.abs(d)) / (0.6745 * np.sqrt(6)))
