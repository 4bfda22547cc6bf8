"""Writes frames as PETRA III P02.2 archives them: one NeXus file per module and ten frames.

Structure, types, chunks and compression are those of real files of 2020; what only the facility
knows (its paths, hosts and serial numbers) is left empty or names the twin.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.twin.detector import MODULE_SHAPE, SATURATION, TRANSLATIONS, modules
from phasewatch.bench.twin.run import Run

FRAMES_PER_PART = 10
_DEFLATE = {"compression": "gzip", "compression_opts": 2, "shuffle": False}
_UNITS = {
    "beam_energy": "eV",
    "calib_energy": "eV",
    "delay_time": "millisecond",
    "shutter_time": "millisecond",
    "count_time": "millisecond",
    "detector_readout_time": "millisecond",
    "threshold_energy": "eV",
    "trigger_dead_time": "millisecond",
    "trigger_delay_time": "millisecond",
    "x_pixel_size": "micrometer",
    "y_pixel_size": "micrometer",
}


def part_name(run_name: str, module: int, part: int) -> str:
    """Return the file name of `part` (from 0) of `module` (from 0)."""
    return f"{run_name}_m{module + 1}_part{part:05d}.nxs"


def write_part(folder: Path, run: Run, *, part: int, frames: Sequence[NDArray[Any]]) -> None:
    """Write the files of all modules for `frames` (1833 x 1556 each), part `part` of `run`."""
    first = part * FRAMES_PER_PART + 1
    pixel_masks = run.detector.pixel_mask()
    for m, pixel_mask in enumerate(pixel_masks):
        data = np.stack([modules(frame)[m] for frame in frames])
        numbers = np.arange(first, first + len(frames), dtype=np.int32)
        path = folder / part_name(run.experiment.name, m, part)
        with h5py.File(path, "w") as file:
            file.attrs["NX_class"] = "NXroot"
            file.attrs["file_name"] = path.name
            instrument = _group(_group(file, "entry", "NXentry"), "instrument", "NXinstrument")
            detector = _group(instrument, "detector", "NXdetector")
            _fill(detector, run, m)
            _frames(detector, "data", data)
            _frames(detector, "pixel_mask", pixel_mask[None])
            _frames(detector, "flatfield", np.full((1, *MODULE_SHAPE), np.nan, np.float32))
            _values(detector, "sequence_number", numbers)
            _values(detector["collection"], "error_code", np.zeros(len(frames), np.int32))


def _fill(detector: h5py.Group, run: Run, module: int) -> None:
    # Module 1's x and y are the origin of the translations; all lengths in pixels.
    translation = _group(detector, "translation", "NXtranslation")
    _values(translation, "distance", np.asarray(TRANSLATIONS[module], np.float32))
    translation["distance"].attrs["units"] = "pixel"
    geometry = _group(detector, "geometry", "NXgeometry")
    _values(geometry, "component_index", np.array([module], np.int16))
    _values(geometry, "description", "UNKOWN")  # as the files spell it
    exposure_ms = run.conditions.exposure_s * 1e3
    _table(
        detector,
        {
            "acquisition_mode": "ContinuousReadWrite",
            "bit_depth_readout": np.uint32(12),
            "calibration_date": "",
            "count_time": np.float64(exposure_ms),
            "countrate_correction_applied": np.int8(1),
            "description": "Lambda",
            "detector_readout_time": np.float64(0),
            "flatfield_applied": np.int8(0),
            "layout": f"{MODULE_SHAPE[1]}X{MODULE_SHAPE[0]}",
            "local_name": "phasewatch",
            "pixel_mask_applied": np.int8(0),
            "saturation_value": np.uint32(SATURATION),
            "sensor_material": "GaAs",
            "sensor_thickness": np.float32(500),
            "threshold_energy": np.float32(6000),
            "trigger_dead_time": np.float64(0),
            "trigger_delay_time": np.float64(0),
            "type": "photon counting",
            "x_pixel_size": np.float64(55),
            "y_pixel_size": np.float64(55),
        },
    )
    _table(
        _group(detector, "collection", "NXcollection"),
        {
            "beam_energy": np.float64(12000),  # the files are never told; the PONI knows
            "calib_energy": np.float64(0),
            "compression_enabled": np.int8(1),
            "compression_rate": np.uint16(2),
            "compressor_shuffle": np.int8(0),
            "config_file_path": "",
            "delay_time": np.float64(0),
            "distortion_correction_applied": np.int8(1),
            "frame_numbers": np.int32(run.conditions.frames),
            "latest_image_number": np.int32(-1),
            "module_id": f"twin-{module + 1}",
            "operating_mode": "ContinuousReadWrite",
            "save_all_images": np.int8(1),
            "save_file_name": f"{run.experiment.name}_m{module + 1}",
            "save_file_path": "",
            "shutter_time": np.float64(exposure_ms),
            "thread_no": np.int32(0),
            "total_loss_frames": np.int32(-1),
            "trigger_mode": np.int16(0),
        },
    )


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _table(group: h5py.Group, values: dict[str, Any]) -> None:
    for name, value in values.items():
        _values(group, name, value if isinstance(value, str) else np.array([value]))


def _values(group: h5py.Group, name: str, value: str | NDArray[Any]) -> None:
    text = isinstance(value, str)
    dataset = group.create_dataset(
        name,
        data=[value] if text else value,
        dtype=h5py.string_dtype("ascii") if text else None,
        chunks=(1,),
        maxshape=(None,),
    )
    if name in _UNITS:
        dataset.attrs["units"] = _UNITS[name]


def _frames(group: h5py.Group, name: str, stack: NDArray[Any]) -> None:
    one = (1, *MODULE_SHAPE)
    group.create_dataset(name, data=stack, chunks=one, maxshape=(None, *MODULE_SHAPE), **_DEFLATE)
