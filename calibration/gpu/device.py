"""Which torch device a name means."""

import re

import torch

from phasewatch.calibration.errors import CalibrationError


def pick(name: str) -> torch.device:
    """Return the device ``cpu``, ``cuda``, ``cuda:N`` or ``auto``, CUDA where there is one.

    Raises
    ------
    CalibrationError
        The name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise CalibrationError(f"device {name!r} is not known: auto, cpu, cuda or cuda:N")
    # From the name: torch keeps an index in 8 bits, and takes cuda:999 for another.
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise CalibrationError(
            f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices"
        )
    return torch.device(name)
