"""From what an output channel of Karabo sends to a run in our own protocol."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.bodies import DroppedBody, StopBody
from phasewatch.pipeline.documents import ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.errors import one_line
from phasewatch.pipeline.messages import Part, encode, encode_batch, encode_failed, encode_start
from phasewatch.plugins.sources.trust import NUMBERS

SHOWN = 20  # keys named where one is not there
FIELDS = ("type", "shape", "isBigEndian", "data")


class WrongFrameError(ValueError):
    """What came is not the image that was due; one line that says what would be."""


def frame_in(data: Any, key: str, dtype_of: Callable[[int], "np.dtype[Any]"]) -> NDArray[Any]:
    """Return the image (height, width) that lies at `key`, an ``NDArray`` or an ``Image``.

    Parameters
    ----------
    data
        The hash that came; it is not trusted.
    dtype_of
        Gives the dtype of a Karabo type number (`karabo.middlelayer.dtype_from_number`).

    Raises
    ------
    WrongFrameError
        There is no such key, or what is there is no image of numbers.
    """
    if key not in data:
        keys = ", ".join(map(str, list(data.paths())[:SHOWN])) or "nothing"
        raise WrongFrameError(f"{key}: no such key; there are: {keys}")
    node = data[key]
    if isinstance(node, Mapping) and "pixels" in node:
        node = node["pixels"]
    if not isinstance(node, Mapping) or any(field not in node for field in FIELDS):
        raise WrongFrameError(f"{key}: a {type(node).__name__}, not an NDArray or Image")
    try:
        shape = tuple(int(n) for n in node["shape"])
        dtype = dtype_of(int(node["type"])).newbyteorder(">" if node["isBigEndian"] else "<")
        raw = memoryview(node["data"]).cast("B")
    except (TypeError, ValueError) as error:
        raise WrongFrameError(f"{key}: not an NDArray: {one_line(error)}") from None
    little = dtype.newbyteorder("<")
    if len(shape) != 2 or min(shape) < 1:
        raise WrongFrameError(f"{key}: shape {shape}, not (height, width)")
    if little.str not in NUMBERS:
        raise WrongFrameError(f"{key}: {dtype} is no number that can be sent")
    if shape[0] * shape[1] * dtype.itemsize != raw.nbytes:
        raise WrongFrameError(f"{key}: {raw.nbytes} bytes came for {dtype} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape).astype(little, copy=False)


class Stream:
    """One run that is sent to the chain; numbers what comes.

    ``start`` goes before every frame: a chain that begins in mid-run then misses none. It costs
    0.1 ms, a frame of 5.7 MB ten times as much.
    """

    def __init__(self, run_id: str, source: str) -> None:
        self.run_id, self._source = run_id, source
        self._start: list[Part] = []
        self._spec: ItemSpec | None = None
        self.n = 0

    @property
    def begun(self) -> bool:
        """Whether a frame was sent."""
        return self._spec is not None

    def frame(self, array: NDArray[Any], id_: int, t_acq: int) -> list[list[Part]]:
        """Return the messages that bring a frame.

        Raises
        ------
        WrongFrameError
            It has another shape or dtype than the first of the run.
        """
        spec = ItemSpec.of(array.shape, array.dtype)
        if self._spec is None:
            run = RunStart(run_id=self.run_id, source=self._source, items={"frame": spec})
            self._spec, self._start = spec, encode_start(run)
        if spec != self._spec:
            raise WrongFrameError(f"{_text(spec)} came, the run is of {_text(self._spec)}")
        seq = np.array([self.n], np.int64)
        batch = Batch(seq, np.array([id_]), np.array([t_acq]), {"frame": array[None]})
        self.n += 1
        return [self._start, encode_batch(self.run_id, batch)]

    def failed(self, id_: int, error: str) -> list[list[Part]]:
        """Return the messages that say that frame `id_` cannot be read; none before the first."""
        if not self.begun:
            return []
        self.n += 1
        return [
            self._start,
            *encode_failed(self.run_id, [Failure(self.n - 1, id_, "karabo", error)]),
        ]

    def dropped(self, id_: int, reason: str) -> list[list[Part]]:
        """Return the messages that say that frame `id_` was dropped; none before the first."""
        if not self.begun:
            return []
        self.n += 1
        body = DroppedBody(run_id=self.run_id, items=((self.n - 1, id_),), reason=reason)
        return [self._start, encode(body)]

    def end(self, reason: str) -> list[Part]:
        """Return the message that ends the run."""
        loss = Loss(received=self.n)
        return encode(StopBody(stop=RunStop(run_id=self.run_id, reason=reason, loss=loss)))


def _text(spec: ItemSpec) -> str:
    return f"{np.dtype(spec.dtype)} {spec.shape}"
