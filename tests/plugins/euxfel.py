"""Runs in European XFEL's format, written by EXtra-data's own example writers."""

from pathlib import Path

import h5py
import numpy as np
from extra_data.tests.mockdata import write_file
from extra_data.tests.mockdata.base import DeviceBase

SOURCE, KEY = "X/CAM/LAMBDA:daqOutput", "data.image.pixels"
FIRST = 10_000


def camera(shape: tuple[int, ...], dtype: str = "u2", name: str = "X/CAM/LAMBDA") -> DeviceBase:
    """Return a device that takes images, like a LAMBDA in front of Karabo."""

    device = DeviceBase(name)
    device.output_channels = ("daqOutput/data",)
    device.instrument_keys = [("image/pixels", dtype, shape), ("frameNumber", "u8", ())]
    return device


def write_images(
    folder: Path,
    frames: np.ndarray,
    *,
    part: int = 0,
    first: int = FIRST,
    version: str = "1.2",
    aggregator: str = "DA01",
    name: str = "X/CAM/LAMBDA",
    per_train: int = 1,
) -> Path:
    """Write a file of a run with `frames` (n, ...), so many in each train; return its path."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"RAW-R0450-{aggregator}-S{part:05d}.h5"
    device = camera(frames.shape[1:], frames.dtype.str[1:], name)
    device.nsamples = len(frames)
    write_file(path, [device], len(frames) // per_train, first, 1, version)
    with h5py.File(path, "r+") as file:
        file[f"INSTRUMENT/{name}:daqOutput/data/image/pixels"][...] = frames
    return path


def skip(path: Path, train: int, name: str = "X/CAM/LAMBDA") -> None:
    """Have the detector skip the train at this position."""
    with h5py.File(path, "r+") as file:
        file[f"INDEX/{name}:daqOutput/data/count"][train] = 0
