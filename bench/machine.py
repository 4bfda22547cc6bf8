"""What was measured on: goes into every report, since a number without it means nothing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("phasewatch", "numpy", "numba", "pyFAI", "pybaselines", "torch", "pyzmq")


def describe() -> dict[str, Any]:
    """Return processor, cores this process may use, memory, system and versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "versions": versions,
    }


def _first(path: str, field: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(field)), "unknown")
