"""1D patterns to labels with probabilities.

A model is a network and a card that says what it was trained on and what its input must be. The
names below are loaded when they are first used, so that importing this package stays fast.
"""

from importlib import import_module
from typing import Any

from phasewatch.models.errors import ModelError
from phasewatch.models.registry import create, names

_LAZY = {
    "Card": "card",
    "Predictor": "predict",
    "Predictions": "predict",
    "Series": "series",
    "check": "card",
    "classification_confidence": "confidence",
    "load": "store",
    "read_labels": "labels",
    "read_series": "series",
    "save": "store",
    "train": "training",
    "zones": "confidence",
}

__all__ = ["ModelError", "create", "names", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
