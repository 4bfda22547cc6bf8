"""A small PONI file whose fields a test can change."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

FIELDS = {
    "poni_version": "2",
    "Detector": "Detector",
    "Detector_config": json.dumps({"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": None}),
    "Distance": "0.1",
    "Poni1": "0.001",
    "Poni2": "-0.002",
    "Rot1": "0.01",
    "Rot2": "0.02",
    "Rot3": "0.0",
    "Wavelength": "4.836e-11",
}


@pytest.fixture
def write_poni(tmp_path: Path) -> Callable[..., Path]:
    """Write a PONI file; a field given as None is left out."""

    def write(**changes: str | None) -> Path:
        fields = {**FIELDS, **changes}
        lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
        path = tmp_path / "geometry.poni"
        path.write_text("# a comment: with a colon\n" + "\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture(autouse=True)
def _no_kept_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASEWATCH_CACHE", "")
