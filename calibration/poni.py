"""The geometry of a measurement as a PONI file says it.

The file is ``key: value`` lines; where a key is repeated the last one counts. Versions: 1 has no
version number and gives ``PixelSize1`` and ``PixelSize2``; 2 gives ``Detector`` and
``Detector_config`` (JSON); 2.1 adds the orientation to the latter; 3 adds ``Parallax``, which must
be false here.
Source: pyFAI 2026.9, ``pyFAI.io.ponifile``.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.errors import CalibrationError

VERSIONS = (1.0, 2.0, 2.1, 3.0)
MAX_BYTES = 1 << 20  # a PONI file is a few hundred bytes, even with years of appended calibrations


@dataclass(frozen=True, slots=True)
class Poni:
    """Geometry of one measurement.

    Attributes
    ----------
    distance, poni1, poni2
        m; distance to the point of normal incidence and its position along axis 1 (y) and 2 (x).
    rot1, rot2, rot3
        rad.
    wavelength
        m, or None where the file has none.
    detector
        Name of a pyFAI detector class.
    config
        JSON object of the detector's constructor arguments, keys in lower case and sorted, without
        what is null or pyFAI's default, so that equal geometries compare equal.
    """

    distance: float
    poni1: float
    poni2: float
    rot1: float
    rot2: float
    rot3: float
    wavelength: float | None
    detector: str
    config: str

    def layout(self) -> tuple[tuple[int, int] | None, NDArray[np.bool_] | None]:
        """Return the detector's shape (height, width) and its own mask; None where it has none.

        Of pyFAI's base class all is said in the file: then pyFAI is not asked, whose import is two
        of the three seconds after which a worker that was started anew is at work.

        Raises
        ------
        CalibrationError
            pyFAI does not know the detector or refuses its configuration.
        """
        config = json.loads(self.config)
        plain = self.detector.lower() == "detector" and _is_all(config)
        detector = None if plain else self.make_detector()
        said = detector.shape or detector.max_shape if detector else config.get("max_shape")
        if said is None:
            return None, None
        # A file's `true` is an int to Python, and would be 1.
        whole = [n for n in said if isinstance(n, int | np.integer) and n is not True]
        shape = [n for n in whole if n > 0]
        if len(shape) != 2 or len(said) != 2:
            raise CalibrationError(f"Detector_config: max_shape is not [height, width]: {said!r}")
        mask = detector.mask if detector else None
        return (int(shape[0]), int(shape[1])), None if mask is None else np.asarray(mask) != 0

    def make_detector(self) -> Any:
        """Build the pyFAI detector.

        Raises
        ------
        CalibrationError
            pyFAI does not know the detector or refuses its configuration.
        """
        from pyFAI.detectors import Detector

        name = self.detector.lower()
        maker = Detector.registry.get(name) or Detector.registry.get(name.replace(" ", "_"))
        if maker is None:
            raise CalibrationError(f"Detector: pyFAI knows no detector {self.detector!r}")
        config = json.loads(self.config)
        # pyFAI writes max_shape for detectors that do not take it; its own factory, which would
        # leave it out too, opens the file if `detector` is one, and logs a traceback for an error.
        names = {argument.lower(): argument for argument in signature(maker).parameters}
        arguments = {names[key]: value for key, value in config.items() if key in names}
        try:
            detector = maker(**arguments)
            if "binning" in config:
                detector.binning = config["binning"]
            # pyFAI leaves a detector's "dummy" counts out, and LAMBDA's is 0: at half a count per
            # pixel six of ten valid pixels would be lost. Negative counts are invalid anyway.
            detector.dummy, detector.delta_dummy = -1, 0.5
        except Exception as error:  # each detector class has its own idea of a bad argument
            raise CalibrationError(f"Detector_config: {self.detector}: {error}") from error
        for field in ("pixel1", "pixel2"):
            size = getattr(detector, field)
            if size is None or not 0 < size < math.inf:
                raise CalibrationError(f"Detector_config: {field} must be a size in m, not {size}")
        return detector


def read_poni(path: str | Path) -> Poni:
    """Read a PONI file of version 1, 2, 2.1 or (without parallax) 3.

    Raises
    ------
    CalibrationError
        The file is missing or no PONI file, of another version, lacks a field, or a value of it is
        not a finite number.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CalibrationError(f"poni {str(path)!r}: cannot be read: {reason}") from error
    pairs = (line.split(":", 1) for line in text.splitlines() if not line.startswith("#"))
    fields = {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}
    if len(text) > MAX_BYTES or not {"distance", "poni1"} & set(fields):
        raise CalibrationError(f"poni {str(path)!r}: is not a PONI file")
    try:
        return _parse(fields)
    except CalibrationError as error:
        raise CalibrationError(f"poni {str(path)!r}: {error}") from error


def _is_all(config: Mapping[str, Any]) -> bool:
    """Tell whether `config` holds all there is to a plain detector, and nothing pyFAI refuses."""
    sizes, shape = (config.get("pixel1"), config.get("pixel2")), config.get("max_shape")
    sized = all(isinstance(x, float | int) and 0 < x < 1 for x in sizes)
    known = config.keys() <= {"pixel1", "pixel2", "max_shape"}
    return sized and known and (shape is None or isinstance(shape, list))


def _parse(fields: Mapping[str, str]) -> Poni:
    version = _number(fields, "poni_version", 2.0 if "detector_config" in fields else 1.0)
    if version not in VERSIONS:
        known = ", ".join(f"{v:g}" for v in VERSIONS)
        raise CalibrationError(f"poni_version: {version:g} is unknown; known: {known}")
    if fields.get("parallax", "false").lower() != "false":
        raise CalibrationError("Parallax: the parallax correction is not supported")
    detector, config = _detector_1(fields) if version == 1 else _detector_2(fields)
    wavelength = fields.get("wavelength", "none")
    distance = _number(fields, "distance")
    if distance <= 0:
        raise CalibrationError(f"Distance: must be positive, in m, not {distance:g}")
    return Poni(
        distance=distance,
        poni1=_number(fields, "poni1"),
        poni2=_number(fields, "poni2"),
        rot1=_number(fields, "rot1"),
        rot2=_number(fields, "rot2"),
        rot3=_number(fields, "rot3"),
        wavelength=None if wavelength.lower() == "none" else _number(fields, "wavelength"),
        detector=detector,
        config=_canonical(config),
    )


def _number(fields: Mapping[str, str], key: str, default: float | None = None) -> float:
    if key not in fields and default is not None:
        return default
    name = key.capitalize()
    if key not in fields:
        raise CalibrationError(f"{name}: is missing")
    try:
        value = float(fields[key])
    except ValueError:
        raise CalibrationError(f"{name}: {fields[key][:80]!r} is not a number") from None
    if not math.isfinite(value):
        raise CalibrationError(f"{name}: must be finite, not {value}")
    return value


def _detector_1(fields: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    if fields.get("splinefile", "none").lower() != "none":
        raise CalibrationError("SplineFile: distortion by spline is not supported, only None")
    name = fields.get("detector", "Detector")
    sizes = {
        key: _number(fields, f"pixelsize{key[-1]}")
        for key in ("pixel1", "pixel2")
        if f"pixelsize{key[-1]}" in fields or name.lower() == "detector"
    }
    return name, sizes


def _detector_2(fields: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    for key in ("detector", "detector_config"):
        if key not in fields:
            raise CalibrationError(f"{key.capitalize()}: is missing")
    try:
        config = json.loads(fields["detector_config"])
    except ValueError as error:
        raise CalibrationError(f"Detector_config: is not JSON: {error}") from None
    if config is not None and not isinstance(config, dict):
        raise CalibrationError("Detector_config: a JSON object is expected")
    return fields["detector"], config or {}


def _canonical(config: Mapping[str, Any]) -> str:
    lower = {key.lower(): value for key, value in config.items()}
    plain = {key: value for key, value in lower.items() if value is not None}
    if plain.get("orientation") == 3:  # bottom right, pyFAI's default
        del plain["orientation"]
    return json.dumps(plain, sort_keys=True)
