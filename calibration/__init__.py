"""Counts on a detector to a clean 1D pattern: pure functions and immutable plans."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from phasewatch.calibration.errors import CalibrationError

if TYPE_CHECKING:
    from phasewatch.calibration.calibration import Calibration
    from phasewatch.calibration.integrate import Integrator

__all__ = ["Calibration", "CalibrationError", "Integrator"]

_HOME = {"Calibration": "calibration", "Integrator": "integrate"}


def __getattr__(name: str) -> Any:
    # Looked up on first use: numba costs half a second, which `phasewatch --help` must not pay.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
