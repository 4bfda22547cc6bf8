"""Reads one detector image (mask, dark, flat, pixel mask) from the file a facility keeps it in.

A *source* is an array, or a path: ``.npy``, HDF5 as ``file.h5#/path/of/dataset``, and else what
fabio recognises by its content (TIFF, EDF, CBF, ...; the suffix does not matter).
"""

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.errors import CalibrationError

Array = NDArray[Any]
ImageSource = str | PathLike[str] | Array


def describe(field: str, source: ImageSource) -> str:
    """Return how an error names `source`: the field, and the file if it is one."""
    return field if isinstance(source, np.ndarray) else f"{field} {fspath(source)!r}"


def read_image(field: str, source: ImageSource) -> Array:
    """Return the image (height, width) of real numbers or booleans that `source` holds.

    Leading axes of length 1 are dropped, as NeXus writes them.

    Raises
    ------
    CalibrationError
        The file is missing or unreadable, would have to be unpickled, or holds no single image.
    """
    where = describe(field, source)
    image = source if isinstance(source, np.ndarray) else _read(where, fspath(source))
    while image.ndim > 2 and image.shape[0] == 1:
        image = image[0]
    if image.ndim != 2 or image.size == 0:
        raise CalibrationError(f"{where}: one image (height, width) is expected, not {image.shape}")
    if image.dtype.kind not in "buif":
        raise CalibrationError(f"{where}: real numbers are expected, not {image.dtype}")
    return image


def _read(where: str, source: str) -> Array:
    path, has_dataset, dataset = source.partition("#")
    if not Path(path).is_file():
        raise CalibrationError(f"{where}: there is no such file")
    try:
        if has_dataset:
            return _read_hdf5(where, path, dataset)
        if Path(path).suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        return _read_fabio(where, path)
    except CalibrationError:
        raise
    except Exception as error:  # each library has its own errors for a broken file
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise CalibrationError(f"{where}: cannot be read: {reason}") from error


def _read_hdf5(where: str, path: str, dataset: str) -> Array:
    import h5py
    import hdf5plugin  # noqa: F401  its filters register themselves on import

    with h5py.File(path, "r") as file:
        item = file.get(dataset) if dataset else None
        if not isinstance(item, h5py.Dataset):
            raise CalibrationError(f"{where}: there is no dataset {dataset!r} in it")
        return np.asarray(item[()])


def _read_fabio(where: str, path: str) -> Array:
    import fabio

    with Path(path).open("rb") as file:
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            raise CalibrationError(f"{where}: say which dataset of it, as FILE#/path")
    with fabio.open(path) as image:
        if image.nframes != 1:
            raise CalibrationError(f"{where}: one image is expected, it has {image.nframes}")
        return np.asarray(image.data)
