"""Makes small LAMBDA runs, reads recordings of DECTRIS streams, and sends messages to sources."""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cbor2
import h5py
import numpy as np
import pytest
import zmq

from phasewatch.pipeline.plugin import open_source
from phasewatch.plugins.sources.stream import Stream

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


class _Plain(pickle.Unpickler):
    """Unpickles lists and bytes, nothing that has a name."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}")


@pytest.fixture(scope="session")
def v2_recording(data_dir: Path) -> list[list[bytes]]:
    """Messages of a DECTRIS Stream V2, an EIGER 1M: start, 10 images, end."""
    with zipfile.ZipFile(data_dir / "dectris_stream" / "stream2.zip") as archive:
        dump = io.BytesIO(archive.read("cboratall.pkls"))
    return [_Plain(dump).load() for _ in range(12)]


@pytest.fixture(scope="session")
def v1_recording(data_dir: Path) -> list[list[bytes]]:
    """Messages of a DECTRIS Stream V1, an EIGER 1M: header with all details, 9 images, no end."""
    with zipfile.ZipFile(data_dir / "dectris_stream" / "eiger_legacy_dump.zip") as archive:
        dump = io.BytesIO(archive.read(archive.namelist()[0]))
    messages = [cbor2.load(dump) for _ in range(10)]
    return [list(message.value[1]["eigerxes"].value[1]) for message in messages]


class Sender:
    """Sockets that push to a source, bound to free ports; closed by the fixture."""

    def __init__(self, context: zmq.Context, n: int, kind: int) -> None:
        self.sockets = [context.socket(kind) for _ in range(n)]
        for socket in self.sockets:
            socket.set_hwm(0)
            socket.bind("tcp://127.0.0.1:*")
        self.addresses = [s.getsockopt_string(zmq.LAST_ENDPOINT) for s in self.sockets]

    def send(self, *messages: Sequence[bytes], to: int = 0) -> None:
        for parts in messages:
            self.sockets[to].send_multipart(list(parts))


@pytest.fixture
def attached() -> Iterator[Callable[..., tuple[Stream, Sender]]]:
    """Return a function that opens a source, and gives who sends to it on `n` sockets."""
    context = zmq.Context()
    sources: list[Stream] = []
    senders: list[Sender] = []

    def attach(
        scheme: str, *, n: int = 1, kind: int = zmq.PUSH, **options: Any
    ) -> tuple[Stream, Sender]:
        sender = Sender(context, n, kind)
        source = open_source(f"{scheme}:{','.join(sender.addresses)}", **options)
        assert isinstance(source, Stream)
        sources.append(source)
        senders.append(sender)
        source.connect()  # to send waits for it
        return source, sender

    yield attach
    for source in sources:
        source.close()
    context.destroy(linger=0)
