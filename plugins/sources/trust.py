"""What is taken from a peer: a usable ``start``, and batches of just what it announced.

Decoding has shown by now that a message is one of ours; here it is compared with the run.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.messages import DTYPES, LIMITS, MessageError

MAX_ITEMS = 4096  # in one message
MAX_EXPECTED = 1 << 48
NDIM = {"frame": 2, "intensity": 1}
CONSTANT = {"frame": ("mask", np.dtype(np.bool_)), "intensity": ("axis", np.dtype(np.float64))}
NUMBERS = DTYPES.keys() - {"|b1"}


def announced(batch: Batch, run: RunStart) -> Batch:
    """Return `batch` with the arrays that `run` announced, and nothing else.

    Raises
    ------
    MessageError
        An array is missing, or of another dtype or shape than was announced.
    """
    if len(batch) > MAX_ITEMS:
        raise MessageError(f"{len(batch)} items in one batch; at most {MAX_ITEMS}")
    arrays = {}
    for name, spec in run.items.items():
        array = batch.arrays.get(name)
        if array is None:
            raise MessageError(f"a batch without {name!r}")
        if array.shape[1:] != spec.shape or array.dtype != np.dtype(spec.dtype):
            raise MessageError(
                f"{name}: {array.dtype} {array.shape[1:]} came, "
                f"{np.dtype(spec.dtype)} {spec.shape} was announced"
            )
        arrays[name] = np.require(array, requirements="A")  # a part may begin at any byte
    return replace(batch, arrays=arrays, stamps={})  # the clock of another host


def check_item(spec: ItemSpec, name: str) -> None:
    """Check that `spec` can be that of a ``frame``, or of an ``intensity``.

    Raises
    ------
    MessageError
        It is of another dimension, empty, no number, or larger than is taken.
    """
    if len(spec.shape) != NDIM[name] or 0 in spec.shape:
        raise MessageError(f"{name} of shape {spec.shape}")
    if spec.dtype not in NUMBERS:
        raise MessageError(f"{name} of dtype {spec.dtype!r}")
    nbytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    if nbytes > LIMITS.array_bytes:
        raise MessageError(f"{name} {spec.shape} claims {nbytes} bytes")


def usable_start(run: RunStart, address: str) -> RunStart:
    """Return `run` with the frames or patterns it announces, and nothing else.

    Raises
    ------
    MessageError
        It announces neither, or its axis or mask cannot be theirs.
    """
    name = "frame" if "frame" in run.items else "intensity"
    key, dtype = CONSTANT[name]
    spec, constant = run.items.get(name), run.constants.get(key)
    if spec is None:
        raise MessageError(f"start of {run.run_id}: neither frames nor patterns: {run.items}")
    try:
        check_item(spec, name)
    except MessageError as error:
        raise MessageError(f"start of {run.run_id}: {error}") from None
    if run.expected is not None and run.expected > MAX_EXPECTED:
        raise MessageError(f"start of {run.run_id}: expected {run.expected} items")
    if name == "intensity" and (constant is None or run.unit is None):
        raise MessageError(f"start of {run.run_id}: patterns without axis or unit")
    if constant is not None:
        if (constant.shape, constant.dtype) != (spec.shape, dtype):
            raise MessageError(
                f"start of {run.run_id}: {key} is {constant.dtype} {constant.shape}, "
                f"not {dtype} {spec.shape}"
            )
        if key == "axis" and not (np.isfinite(constant).all() and (np.diff(constant) > 0).all()):
            raise MessageError(f"start of {run.run_id}: the axis is not finite and increasing")
    return run.evolve(
        source=f"zmq:{address} of {run.source}"[:4096],
        items={name: spec},
        settings=_settings(run),
        classes=(),
        constants={} if constant is None else {key: np.array(constant)},
    )


def _settings(run: RunStart) -> dict[str, Any]:
    """Return what the peer says it did to its patterns, and nothing else it says."""
    said = run.settings
    found: dict[str, Any] = {}
    if "baseline" in said:
        baseline = said["baseline"]
        if not isinstance(baseline, dict) or not isinstance(baseline.get("method"), str):
            raise MessageError(f"start of {run.run_id}: settings.baseline is not a method")
        found["baseline"] = baseline
    if "normalise" in said:
        if not isinstance(said["normalise"], str):
            raise MessageError(f"start of {run.run_id}: settings.normalise is not a text")
        found["normalise"] = said["normalise"]
    return found
