"""From raw counts on the host to clean patterns on a device: integrate, baseline, normalise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from phasewatch.calibration.calibration import Calibration
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.gpu.baseline import asls, check
from phasewatch.calibration.gpu.device import pick
from phasewatch.calibration.gpu.integrate import TorchIntegrator
from phasewatch.calibration.gpu.normalise import METHODS, normalise
from phasewatch.calibration.integrate import Split, Unit


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """What became of n frames; all on the device.

    Attributes
    ----------
    patterns
        (n, n_bins) float32; an empty bin is NaN.
    seen
        (n,) bool, the frame has a valid pixel.
    ok
        (n,) bool, the frame could be reduced: it was seen and its pattern can be normalised. The
        pattern of one that could not means nothing.
    """

    patterns: torch.Tensor
    seen: torch.Tensor
    ok: torch.Tensor


class TorchReduction:
    """Reduces batches of frames on one device.

    Parameters
    ----------
    calibration, n_bins, unit, split, range
        As for `phasewatch.calibration.Integrator`.
    baseline
        ``{"method": "asls", "lam": ..., "p": ..., "n_iter": ...}`` or ``{"method": "none"}``.
    normalise
        ``minmax``, ``area`` or ``none``.
    device
        ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.

    Attributes
    ----------
    axis, valid
        As of `phasewatch.calibration.Integrator`.
    device
        The torch device.

    Raises
    ------
    CalibrationError
        An option is out of range or not known here, or the device is not there.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        n_bins: int,
        unit: Unit = "2th_deg",
        split: Split = "no",
        range: tuple[float, float] | None = None,
        baseline: Mapping[str, Any],
        normalise: str,
        device: str = "auto",
    ) -> None:
        can(baseline, normalise)
        self._baseline = dict(baseline)
        self._subtract = self._baseline.pop("method") == "asls"
        if self._subtract and n_bins < 3:
            raise CalibrationError(f"n_bins: asls needs at least 3, not {n_bins}")
        self._normalise = normalise
        self.device = pick(device)
        self._integrate = TorchIntegrator(
            calibration, n_bins=n_bins, unit=unit, split=split, range=range, device=self.device
        )
        self.axis, self.valid = self._integrate.axis, self._integrate.valid

    def __call__(self, frames: NDArray[Any]) -> Reduced:
        """Reduce `frames` (n, height, width); a frame that cannot be is marked, not raised.

        Raises
        ------
        CalibrationError
            The frames have another shape or are not real numbers.
        """
        patterns, seen = self._integrate(frames)
        if self._subtract:
            patterns = (patterns - asls(patterns, **self._baseline)).float()
        patterns, possible = normalise(patterns, self._normalise)
        return Reduced(patterns, seen, seen & possible)


def can(baseline: Mapping[str, Any], normalise: str) -> None:
    """Refuse what only the CPU's functions can do.

    Raises
    ------
    CalibrationError
        Names the option and says what is known here.
    """
    method = baseline.get("method")
    options = {name: value for name, value in baseline.items() if name != "method"}
    if method not in ("asls", "none"):
        raise CalibrationError(f"baseline method: {method!r} is not known on a device: asls, none")
    known = ("lam", "p", "n_iter") if method == "asls" else ()
    for name in options:
        if name not in known:
            text = ", ".join(known) or "none"
            raise CalibrationError(f"baseline {method}: option {name!r} is unknown; known: {text}")
    check(**options)
    if normalise not in METHODS:
        raise CalibrationError(
            f"normalise: {normalise!r} is not known on a device: {', '.join(METHODS)}"
        )
