"""The figures that a contender is judged by; n patterns, k ordered classes.

A boundary between class c and c + 1 lies, in frames, where the later class begins. Where labels are
ambiguous there (`phasewatch.models.confidence`) it is the middle of the zone: with `after` the last
frame before the zone and `before` the first behind it, ``(after + 1 + before) / 2``. A class that
is never seen puts it at an end of the series.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.models.confidence import AmbiguityZone, classification_confidence, zones

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

ECE_BINS = 15  # as Guo et al.


def calibration_error(probability: NDArray[Any], truth: Int64, *, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error ``sum_m |B_m| / n |accuracy(B_m) - confidence(B_m)|``.

    Bin B_m holds the patterns whose largest probability lies in ``((m - 1) / bins, m / bins]``;
    with two classes too, where the lower half of the bins stays empty. Guo et al., On calibration
    of modern neural networks, ICML 2017, eq. 3.

    Parameters
    ----------
    probability
        (n, k).
    truth
        (n,), the class of each.
    """
    sure = np.asarray(probability, np.float64).max(axis=1)
    right = np.argmax(probability, axis=1) == truth
    # float32 probabilities may add up to a little more than 1
    which = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=right - sure, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def boundaries(label: Int64, index: Int64, n: int, n_classes: int) -> list[float]:
    """Return the k - 1 boundaries, in frames.

    Parameters
    ----------
    label
        (m,), of the frames `index`, in order.
    index
        (m,), rising, the frames of the series that have a label; a boundary outside of them lies
        half way to the end of the series.
    n
        Frames of the series.
    """
    frame = np.concatenate([[-1], index, [n]])

    def middle(zone: AmbiguityZone) -> float:
        return float(frame[zone.after + 1] + 1 + frame[zone.before + 1]) / 2

    return [middle(zone) for zone in zones(label, n_classes)]


def off(found: list[float], true: list[float], scale: Float64 | None = None) -> float:
    """Return the mean distance of boundaries from the true ones: in frames, or along `scale`.

    Parameters
    ----------
    scale
        (n,) a quantity such as pressure at each frame, interpolated between frames.
    """
    if scale is not None:
        frames = np.arange(len(scale))
        found, true = ([float(np.interp(b, frames, scale)) for b in x] for x in (found, true))
    return math.fsum(abs(f - t) for f, t in zip(found, true, strict=True)) / len(true)


def judge(
    label: Int64,
    probability: NDArray[Any] | None,
    index: Int64,
    *,
    n: int,
    n_classes: int,
    truth_index: Int64,
    truth: Int64,
    seen: Int64,
    order: Float64 | None,
) -> dict[str, Any]:
    """Return confidence, boundaries and their errors, accuracy and calibration error.

    Parameters
    ----------
    label, probability
        (m,) and (m, k) of the usable patterns; no probability of a method that gives none.
    index
        (m,) which of the `n` patterns of the series these are.
    truth_index, truth
        (t,) the patterns whose class is known, and that class.
    seen
        Patterns that were trained on: neither accuracy nor calibration error counts them.
    order
        (n,) the external variable, such as pressure, in whose unit the error is given too.
    """
    found = boundaries(label, index, n, n_classes)
    true = boundaries(truth, truth_index, n, n_classes)
    new = np.isin(index, truth_index) & ~np.isin(index, seen)
    known = truth[np.searchsorted(truth_index, index[new])]
    judged = len(known) > 0
    return {
        "confidence": classification_confidence(label, n_classes),
        "boundary": found,
        "boundary_true": true,
        "error_frames": off(found, true),
        "error_order": None if order is None else off(found, true, order),
        "accuracy": float((label[new] == known).mean()) if judged else None,
        "ece": calibration_error(probability[new], known)
        if judged and probability is not None
        else None,
        "n_judged": len(known),
    }
