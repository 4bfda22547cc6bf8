"""Frames from the host to a device, in the detector's own type, through buffers made once.

On CUDA the buffers on the host are pinned and the copies run on a stream of their own. There are
two of each, so that a chunk is on its way while the one before is computed. This has not been run
on a CUDA device yet: the order of copies and computations is tested with streams that keep books.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phasewatch.calibration.counts import native

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Slot:
    host: torch.Tensor
    device: torch.Tensor
    uploaded: Any
    computed: Any


class Upload:
    """Two chunks of at most `n_frames` frames of `shape` on their way to `device`."""

    def __init__(self, shape: tuple[int, int], n_frames: int, device: torch.device) -> None:
        self._shape, self._n_frames, self._device = shape, n_frames, device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._dtype: np.dtype[Any] | None = None
        self._slots: tuple[_Slot, ...] = ()

    def __call__(self, frames: Array) -> Iterator[torch.Tensor]:
        """Give `frames` (n, height, width) in chunks (m, height, width) on the device.

        A chunk is valid until the next is asked for, on the stream that is then current.
        """
        dtype = native(np.empty(0, frames.dtype)).dtype
        if not self._slots or dtype != self._dtype:  # numpy takes None for float64
            self._dtype, self._slots = dtype, tuple(self._slot(dtype) for _ in range(2))
        ahead: tuple[_Slot, int] | None = None
        for i, first in enumerate(range(0, len(frames), self._n_frames)):
            # Before the last chunk is computed: the computation may wait for the device.
            following = self._send(frames[first : first + self._n_frames], self._slots[i % 2])
            if ahead is not None:
                yield from self._give(*ahead)
            ahead = following
        if ahead is not None:
            yield from self._give(*ahead)

    def _slot(self, dtype: np.dtype[Any]) -> _Slot:
        shape = (self._n_frames, *self._shape)
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        host = torch.empty(shape, dtype=kind, pin_memory=self._stream is not None)
        if self._stream is None:
            return _Slot(host, host, None, None)
        device = torch.empty(shape, dtype=kind, device=self._device)
        return _Slot(host, device, torch.cuda.Event(), torch.cuda.Event())

    def _send(self, frames: Array, slot: _Slot) -> tuple[_Slot, int]:
        n = len(frames)
        if slot.uploaded is not None:
            slot.uploaded.synchronize()  # the copy before has left the pinned buffer
        # By numpy, which takes any byte order, stride and alignment, and what is read-only.
        slot.host.numpy()[:n] = frames
        if self._stream is not None:
            self._stream.wait_event(slot.computed)
            with torch.cuda.stream(self._stream):
                slot.device[:n].copy_(slot.host[:n], non_blocking=True)
                slot.uploaded.record(self._stream)
        return slot, n

    def _give(self, slot: _Slot, n: int) -> Iterator[torch.Tensor]:
        if self._stream is None:
            yield slot.device[:n]
            return
        torch.cuda.current_stream(self._device).wait_event(slot.uploaded)
        try:
            yield slot.device[:n]
        finally:
            slot.computed.record(torch.cuda.current_stream(self._device))
