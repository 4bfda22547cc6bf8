"""The memory of the processes of a run over time, from /proc/PID/statm."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVERY_NS = 1_000_000_000
# Arenas and queues are as large as they get after some 15 s of a run of 60 s.
WARM_UP = 0.25
MIB = 1 << 20


def resident(pid: int) -> tuple[int, int] | None:
    """Return the resident bytes of `pid` and those of them that it shares; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    return int(fields[1]) * page, int(fields[2]) * page


class Memory:
    """Samples once a second while `sample` is called more often; `pids` are by role."""

    def __init__(
        self,
        pids: Mapping[str, int],
        clock: Callable[[], int],
        read: Callable[[int], tuple[int, int] | None] = resident,
    ) -> None:
        self._pids, self._clock, self._read = pids, clock, read
        self._next = 0
        self._samples: dict[str, list[tuple[int, int]]] = {}

    def sample(self) -> None:
        """Sample, if the last time was a second ago."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_NS
        for role, pid in self._pids.items():
            if (found := self._read(pid)) is not None:
                self._samples.setdefault(role, []).append(found)

    def clear(self) -> None:
        """Forget what was sampled: the processes were still starting."""
        self._samples.clear()
        self._next = 0

    def summary(self) -> dict[str, Any]:
        """Return by role, in MiB: resident memory first (after a quarter of the run), last and max.

        ``own_*``: without pages that are shared with other processes or mapped from files. The
        growth is that of the own memory, from first to last; ``own`` is all of it, once a second.
        """
        return {role: _summary(samples) for role, samples in self._samples.items()}


def _summary(samples: list[tuple[int, int]]) -> dict[str, Any]:
    warm = samples[int(WARM_UP * len(samples)) :]
    whole = [total / MIB for total, _ in warm]
    own = [(total - shared) / MIB for total, shared in warm]
    found = {
        **{"first": whole[0], "last": whole[-1], "max": max(whole)},
        **{"own_first": own[0], "own_last": own[-1], "own_max": max(own)},
        "own_growth": own[-1] / own[0] - 1 if own[0] > 0 else 0.0,
    }
    every = [round((total - shared) / MIB, 1) for total, shared in samples]
    return {"samples": len(samples), **{k: round(v, 4) for k, v in found.items()}, "own": every}
