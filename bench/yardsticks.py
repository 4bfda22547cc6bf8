"""What the reduction is measured on and against: calibrations, frames, and pyFAI's CPU methods."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.method_registry import IntegrationMethod

from phasewatch.calibration.calibration import Calibration

Call = Callable[[NDArray[Any]], NDArray[Any]]

# Like L2.poni of the real LAMBDA files: beam off the chip, 25.6 keV.
PONI = """poni_version: 2
Detector: {name}
Detector_config: {config}
Distance: 0.309
Poni1: 0.0385
Poni2: 0.1407
Rot1: 0.0072
Rot2: 0.0015
Rot3: 0.0
Wavelength: 4.836e-11
"""


def named(detector: str) -> Calibration:
    """Return the calibration of a detector that pyFAI knows."""
    return _load(PONI.format(name=detector, config="{}"))


def square(side: int) -> Calibration:
    """Return the calibration of a detector of `side` x `side` pixels, on the area of a 2M."""
    pixel = 1556 * 55e-6 / side
    config = json.dumps({"pixel1": pixel, "pixel2": pixel, "max_shape": [side, side]})
    return _load(PONI.format(name="Detector", config=config), shape=(side, side))


def _load(text: str, **options: Any) -> Calibration:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "geometry.poni"
        path.write_text(text, encoding="utf-8")
        return Calibration.load(path, **options)


def counts(calibration: Calibration, n: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return `n` frames (n, height, width), half a count a pixel."""
    rng, shape = np.random.default_rng(seed), calibration.shape or ()
    frames = np.empty((n, *shape), np.uint16)
    for k, frame in enumerate(frames):
        frame[:] = rng.poisson(0.5, shape) if k < 16 else frames[k - 16]
    return frames


def methods(calibration: Calibration, bins: tuple[int, ...], split: str) -> dict[str, Call]:
    """Return all CPU methods of pyFAI by name; the first call of one makes its plan.

    `bins`: (n_bins,) for patterns, (n_bins, n_azimuth) for maps.
    """
    poni, detector = calibration.poni, calibration.poni.make_detector()
    if detector.shape is None:
        detector.shape = detector.max_shape = calibration.shape
    ai = AzimuthalIntegrator(
        *(poni.distance, poni.poni1, poni.poni2, poni.rot1, poni.rot2, poni.rot3),
        detector=detector,  # as `make_detector` gives it: a count of 0 is a count
        wavelength=calibration.wavelength,
    )
    mask = np.array(calibration.mask)
    integrate_nd = ai.integrate1d if len(bins) == 1 else ai.integrate2d

    def integrate(method: IntegrationMethod, frame: NDArray[Any]) -> NDArray[Any]:
        result = integrate_nd(frame, *bins, unit="2th_deg", mask=mask, method=method)
        return np.asarray(result.intensity)

    return {
        f"{method.algo_lower} {method.impl_lower}": partial(integrate, method)
        for method in IntegrationMethod.select_method(len(bins), split, "*", "*", degradable=False)
        if method.impl_lower != "opencl" or "CPU" in str(method.target_name).upper()
    }


def fastest(calls: dict[str, Call], blank: NDArray[Any]) -> dict[str, Call]:
    """Return the four of `calls` that take the frame `blank` fastest, and csr cython."""
    took = {}
    for name, call in calls.items():
        call(blank)  # makes the plan
        start = perf_counter_ns()
        call(blank)
        took[name] = perf_counter_ns() - start
    chosen = sorted(took, key=took.__getitem__)[:4]
    return {name: calls[name] for name in {*chosen, "csr cython"}}
