"""Makes small LAMBDA runs, reads recordings of DECTRIS streams, and sends messages to sources."""

import io
import json
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


def _json(htype: Any, *more: bytes, **fields: Any) -> list[bytes]:
    return [json.dumps({"htype": htype, **fields}).encode(), *more]


def _v1_image(frame: int, blob: bytes = b"", **described: Any) -> list[bytes]:
    described = {"htype": "dimage_d-1.0", "shape": [20, 6], "type": "uint16"} | described
    image = {"series": 1, "frame": frame}
    return _json("dimage-1.0", json.dumps(described).encode(), blob, b"{}", **image)


def _v2(kind: str, **fields: Any) -> list[bytes]:
    series = {"series_id": 1, "series_unique_id": "U1"}
    return [cbor2.dumps(cbor2.CBORTag(55799, {"type": kind, **series, **fields}))]


def _v2_image(image: Any, **fields: Any) -> list[bytes]:
    return _v2("image", image_id=77, data={"threshold_1": image}, **fields)


def _array(shape: Any, numbers: Any, tag: int = 69) -> cbor2.CBORTag:
    return cbor2.CBORTag(40, [shape, cbor2.CBORTag(tag, numbers)])


HUGE = (1 << 62).to_bytes(8, "big") + (8192).to_bytes(4, "big") + b"x" * 40
IMAGE = {"msg_number": 1 << 40, "frame": 77, "type": "uint16", "shape": [6, 20]}
# Whatever the protocol, none of these may change what comes of the messages around it. Where one is
# recognised as image 77 of the run, that is a failure.
HOSTILE: dict[str, list[bytes]] = {
    "nothing": [b""],
    "many empty parts": [b""] * 300,
    "random": [np.random.default_rng(1).bytes(300)],
    "random parts": [np.random.default_rng(n).bytes(40) for n in range(5)],
    "a pickle": [pickle.dumps(("x", 1))],
    "of our own protocol": [b"\x82\xa1v\x02\xa4body\x80"],
    "of a bridge": [b"\x82\xa6source\xa1x\xa7content\xa5array", b"x"],
    "JSON cut off": [b'{"htype":"dimage-1.0","ser'],
    "JSON nested": [b'{"htype":' + b"[" * 100_000],
    "JSON of a huge number": [b'{"htype":"dimage-1.0","series":1' + b"0" * 10_000 + b"}"],
    "JSON of a megabyte": [b'{"htype":"' + b"x" * (2 << 20) + b'"}'],
    "JSON that is no text": [b'{"htype":"\xff\xfe"}'],
    "another htype": _json("dimage-2.0", b"x"),
    "htype is a number": _json(5),
    "V1 negative": _json("dimage-1.0", series=1, frame=-1),
    "V1 of 2^63": _json("dimage-1.0", series=1, frame=1 << 63),
    "V1 a fraction": _json("dimage-1.0", series=1, frame=1.5),
    "V1 alone": _json("dimage-1.0", series=1, frame=77),
    "V1 shape": _v1_image(77, shape=[1 << 40, 1 << 40]),
    "V1 shape of one": _v1_image(77, shape=[120]),
    "V1 type": _v1_image(77, type="object"),
    "V1 encoding": _v1_image(77, encoding="zip<"),
    "V1 bits": _v1_image(77, encoding="bs32-lz4<"),
    "V1 claims": _v1_image(77, HUGE, encoding="bs16-lz4<"),
    "V1 claims lz4": _v1_image(77, HUGE, encoding="lz4<"),
    "V1 header": _json("dheader-1.0", b"{}", series=9, header_detail="all"),
    "V1 header of one part": _json("dheader-1.0", series=9, header_detail="basic"),
    "CBOR nested": [b"\xd9\xd9\xf7" + b"\x81" * 100_000],
    "CBOR claims": [b"\xd9\xd9\xf7\x9b" + b"\x7f" * 8],
    "CBOR cut off": [_v2("image", image_id=77)[0][:-3]],
    "CBOR of another type": _v2("stop"),
    "V2 no data": _v2("image", image_id=77),
    "V2 number": _v2("image", image_id="77", data={}),
    "V2 start": _v2("start", image_size_x=1 << 40, image_size_y=1 << 40, image_dtype="uint16"),
    "V2 shape": _v2_image(_array([1 << 40, 1 << 40], b"x")),
    "V2 tag": _v2_image(_array([6, 20], bytes(240), tag=83)),
    "V2 column-major": _v2_image(cbor2.CBORTag(1040, [[6, 20], cbor2.CBORTag(69, bytes(240))])),
    "V2 bytes": _v2_image(_array([6, 20], bytes(239))),
    "V2 claims": _v2_image(_array([6, 20], cbor2.CBORTag(56500, ["bslz4", 2, HUGE]))),
    "V2 elements": _v2_image(_array([6, 20], cbor2.CBORTag(56500, ["bslz4", 4, HUGE]))),
    "V2 codec": _v2_image(_array([6, 20], cbor2.CBORTag(56500, ["trpx", 2, HUGE]))),
    "V2 date": _v2_image(_array([6, 20], bytes(240)), series_date="now", start_time=[1, 0]),
    "array alone": _json("array-1.0", frame=77, shape=[6, 20], type="uint16"),
    "array shape": _json("array-1.0", b"x", frame=77, shape=[1 << 31, 1 << 31], type="uint16"),
    "array type": _json("array-1.0", b"x", frame=77, shape=[6, 20], type="O"),
    "array encoding": _json("array-1.0", b"x", frame=77, shape=[6, 20], type="u2", encoding="zip"),
    "STINS without a number": _json("image", b"x", frame=77, shape=[6, 20], type="uint16"),
    "STINS without a frame": _json("image", b"x", msg_number=5, shape=[6, 20], type="uint16"),
    "STINS alone": _json("image", **IMAGE),
    "STINS shape": _json("image", b"x", **IMAGE | {"shape": [1 << 31, 1 << 31]}),
    "STINS claims": _json("image", HUGE, **IMAGE | {"compression": "bslz4"}),
    "STINS compression": _json("image", b"x", **IMAGE | {"compression": "zip"}),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> list[bytes]:
    """A message that no source may stumble over."""
    return HOSTILE[request.param]
