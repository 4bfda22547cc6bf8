"""The upload's order of copies and computations, with streams that run late and keep books."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from phasewatch.calibration.gpu.upload import Upload, _Slot

FRAMES = np.random.default_rng(0).integers(0, 65536, (11, 3, 4)).astype(np.uint16)


def test_the_first_frames_may_be_of_any_type():
    for dtype in ("u1", "u2", "f4", "f8"):
        (chunk,) = Upload((3, 4), 20, torch.device("cpu"))(FRAMES.astype(dtype))
        np.testing.assert_array_equal(chunk.numpy(), FRAMES.astype(dtype))


@pytest.mark.parametrize("n_frames", [1, 2, 3, 11, 20])
def test_all_frames_come_in_order_and_in_their_own_type(n_frames):
    upload = Upload((3, 4), n_frames, torch.device("cpu"))
    for frames in (FRAMES, FRAMES[:5], FRAMES.astype(">i4"), FRAMES > 99, FRAMES[:0]):
        chunks = [chunk.numpy().copy() for chunk in upload(frames)]
        assert all(len(chunk) <= n_frames for chunk in chunks)
        found = np.concatenate(chunks) if chunks else frames
        np.testing.assert_array_equal(found, frames)
        assert found.dtype.itemsize == frames.dtype.itemsize


class LateStream:
    """A queue of work that nobody does until somebody has to wait for it."""

    def __init__(self):
        self.queue = []

    def run(self, upto=None):
        while self.queue and (upto is None or upto > 0):
            self.queue.pop(0)()
            upto = None if upto is None else upto - 1

    def wait_event(self, event):
        mark = (event.stream, event.position)
        self.queue.append(lambda: LateEvent.reach(*mark))


class LateEvent:
    stream = None
    position = 0

    def record(self, stream):
        self.stream, self.done = stream, [False]
        done = self.done
        self.position = done
        stream.queue.append(lambda: done.__setitem__(0, True))

    @staticmethod
    def reach(stream, done):
        while stream is not None and not done[0]:
            stream.run(1)

    def synchronize(self):
        self.reach(self.stream, self.position)


class LateTensor:
    """A device tensor whose copies go to the copy stream instead of happening."""

    def __init__(self, tensor, stream):
        self.tensor, self.stream = tensor, stream

    def __getitem__(self, index):
        return LateTensor(self.tensor[index], self.stream)

    def copy_(self, source, *, non_blocking):
        assert non_blocking
        self.stream.queue.append(lambda: self.tensor.copy_(source))


def test_no_copy_overtakes_a_computation_and_none_is_overtaken(monkeypatch):
    copies, computations = LateStream(), LateStream()

    @contextmanager
    def on(stream):
        assert stream is copies
        yield

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computations)
    upload = Upload((3, 4), 2, torch.device("cpu"))
    upload._stream = copies
    upload._slot = lambda dtype: _Slot(
        torch.empty((2, 3, 4), dtype=torch.uint16),
        LateTensor(torch.empty((2, 3, 4), dtype=torch.uint16), copies),
        LateEvent(),
        LateEvent(),
    )

    found = []
    for _ in range(2):  # the buffers go from call to call
        for chunk in upload(FRAMES):
            device = chunk.tensor
            computations.queue.append(lambda d=device: found.append(d.numpy().copy()))
    computations.run()

    np.testing.assert_array_equal(np.concatenate(found), np.concatenate([FRAMES, FRAMES]))
