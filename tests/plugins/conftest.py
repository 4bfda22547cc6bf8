"""Makes small LAMBDA runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

SHAPE = (20, 30)
TRANSLATIONS = ((0, 0, 0), (-2, 25, 0), (-2, 50, 0))
CANVAS = (70, 32)
DETECTOR = "entry/instrument/detector"


def module_frame(module: int, number: int) -> np.ndarray:
    """Counts that tell module, frame and pixel apart."""
    ramp = np.arange(SHAPE[0] * SHAPE[1], dtype=np.int16).reshape(SHAPE)
    return (ramp + 1000 * module + 7 * number).astype(np.int16) % 4000


def write_part(path: Path, module: int, numbers: Sequence[int], planned: int) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group(DETECTOR)
        data = np.array([module_frame(module, n) for n in numbers], np.int16)
        group.create_dataset("data", data=data.reshape(-1, *SHAPE), chunks=(1, *SHAPE))
        group["sequence_number"] = np.array(numbers, np.int32)
        group["translation/distance"] = np.array(TRANSLATIONS[module - 1], np.float32)
        group["saturation_value"] = np.array([4095], np.uint32)
        group["collection/frame_numbers"] = np.array([planned], np.int32)
        group["collection/beam_energy"] = np.array([12000.0])
        mask = np.zeros((1, *SHAPE), np.uint32)
        mask[0, :, 14:16] = 1
        mask[0, 0, :] |= 1 << 31
        mask[0, 5, 5] = 1 << 4
        group["pixel_mask"] = mask


@pytest.fixture
def lambda_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run of three modules and gives its folder."""

    def write(name: str = "run7", parts: int = 3, per_part: int = 4) -> Path:
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        for module in (1, 2, 3):
            for part in range(parts):
                numbers = range(1 + part * per_part, 1 + (part + 1) * per_part)
                path = folder / f"{name}_m{module}_part{part:05d}.nxs"
                write_part(path, module, numbers, parts * per_part)
        return folder

    return write
