"""A run over a Karabo bridge: what the bridge alone delivers, and what our source takes from it.

EXtra-data serves a run in European XFEL's format, from files that the system has in memory, to one
of two clients in turn: karabo_bridge's own, which throws the trains away, and our source, which
writes every frame into the ring of a receiver. Rates are from the first frame to the last, so that
no start of a process is in them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from phasewatch.bench import machine
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import Source, open_source
from phasewatch.pipeline.processes.reader import Reader
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.ring import Ring, default_slots, new_memory

SHAPE = (1833, 1556)  # three modules of a LAMBDA 2M, assembled
DEVICE, CHANNEL, KEY = "PHASEWATCH/CAM/LAMBDA", "daqOutput", "data.image.pixels"
SOURCE = f"{DEVICE}:{CHANNEL}"
SOCKETS = {"REP": "REQ", "PUSH": "PULL"}
POLL_MS = 100
PATIENCE_S = 60.0

Kind = Literal["REP", "PUSH"]


@dataclass(frozen=True, slots=True)
class Pace:
    """Frames per second, and the processor time of the client for each, in ms."""

    rate_hz: float
    cpu_ms: float


Client = Callable[[str, int], Pace]


class Watch:
    """Measures from the first frame to the last."""

    def __init__(self) -> None:
        self._begin = self._now()

    def pace(self, frames: int) -> Pace:
        """Return the pace of the `frames` that came since."""
        wall, cpu = (now - then for now, then in zip(self._now(), self._begin, strict=True))
        return Pace(frames / wall, 1e3 * cpu / frames)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def write_run(folder: Path, frames: int) -> None:
    """Write a run of Poisson counts with EXtra-data's example writer.

    Raises
    ------
    PipelineError
        EXtra-data is not installed.
    """
    try:
        import h5py
        from extra_data.tests.mockdata import write_file
        from extra_data.tests.mockdata.base import DeviceBase
    except ImportError:
        raise PipelineError("bench bridge needs: pip install 'phasewatch[facility]'") from None
    device = DeviceBase(DEVICE)
    device.output_channels = (f"{CHANNEL}/data",)
    device.instrument_keys = [("image/pixels", "u2", SHAPE)]
    path = folder / "RAW-R0001-DA01-S00000.h5"
    write_file(path, [device], frames, chunksize=1, format_version="1.2")
    counts = np.random.default_rng(0).poisson(3.0, SHAPE).astype(np.uint16)
    with h5py.File(path, "r+") as file:
        data = file[f"INSTRUMENT/{SOURCE}/data/image/pixels"]
        for n in range(frames):
            data[n] = np.roll(counts, n, axis=0)


@contextmanager
def serving(run: Path, kind: Kind) -> Iterator[str]:
    """Have EXtra-data serve `run`; yield where."""
    command = Path(sys.executable).with_name("karabo-bridge-serve-files")
    what = ["tcp://127.0.0.1:0", "--source", SOURCE, "--key", KEY, "-z", kind]
    process = subprocess.Popen(
        [command, run, *what],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        said = process.stdout.readline() if process.stdout else ""
        if not said.startswith("Streamer started on:"):
            raise PipelineError(f"karabo-bridge-serve-files did not start: {said}")
        yield said.split()[-1]
    finally:
        process.kill()
        process.communicate()


def alone(kind: Kind) -> Client:
    """Return a client that takes trains with karabo_bridge and throws them away."""
    import karabo_bridge

    def take(endpoint: str, frames: int) -> Pace:
        with karabo_bridge.Client(endpoint, sock=SOCKETS[kind], timeout=PATIENCE_S) as client:
            client.next()
            watch = Watch()
            for _ in range(frames - 1):
                client.next()
            return watch.pace(frames - 1)

    return take


def into_ring(kind: Kind, check: Callable[[Batch], None]) -> Client:
    """Return a client that is our source as the receiver has it: in a thread, into its ring.

    `check` is given the last batch, when the time has been taken.
    """

    def take(endpoint: str, frames: int) -> Pace:
        source = open_source(
            f"karabo-bridge:{endpoint}",
            type=SOCKETS[kind],
            name=SOURCE,
            key=KEY,
            idle_timeout_s=PATIENCE_S,
        )
        try:
            return _read(source, frames, check)
        finally:
            source.close()

    return take


def _read(source: Source, frames: int, check: Callable[[Batch], None]) -> Pace:
    items = source.start().items
    ring = Ring.create(fd := new_memory(), items, slots=default_slots(items), note=b"")
    os.close(fd)
    came, watch, pace = 0, None, None
    with Transport() as transport:
        reader = Reader(source, transport.wakeup(), ring, limit=4, wait=True)
        reader.start()
        try:
            while came < frames and not reader.drained:
                transport.poll([reader.wakeup], POLL_MS)
                reader.wakeup.clear()
                while (item := reader.take()) is not None:
                    if not isinstance(item, Batch):
                        raise PipelineError(f"a frame failed: {item.error}")
                    came += len(item)
                    watch = watch or Watch()
                    if came == frames:
                        pace = watch.pace(frames - 1)
                        check(item)
                    slots = ring.slots_of(item.arrays)
                    if slots is None:
                        raise PipelineError("a frame was not written into the ring")
                    ring.release(slots)
        finally:
            reader.stop()
            reader.join(timeout_s=PATIENCE_S)
    if reader.error is not None:
        raise reader.error
    if pace is None:
        raise PipelineError(f"{came} frames of {frames} came")
    return pace


def measure(
    kind: Kind, frames: int, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Return the rates of both clients, in turn, every other round backwards; and their ratio."""
    paces: dict[str, list[Pace]] = {"bridge alone": [], "into the ring": []}
    with tempfile.TemporaryDirectory(prefix="phasewatch-bridge-") as name:
        folder = Path(name)
        progress(f"writing {frames} frames")
        write_run(folder, frames)
        clients: Mapping[str, Client] = {
            "bridge alone": alone(kind),
            "into the ring": into_ring(kind, check_frame),
        }
        for i in range(-1, rounds):  # the first has the files read, and does not count
            for who in list(clients) if i % 2 == 0 else reversed(list(clients)):
                progress(f"round {i + 1} of {rounds}: {who}")
                with serving(folder, kind) as endpoint:
                    pace = clients[who](endpoint, frames)
                if i >= 0:
                    paces[who].append(pace)
    rates = {who: [pace.rate_hz for pace in found] for who, found in paces.items()}
    cpu = {who: median(pace.cpu_ms for pace in found) for who, found in paces.items()}
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    return {
        "scenario": "bridge",
        "socket": kind,
        "frames": frames,
        "shape": SHAPE,
        "dtype": "uint16",
        "rates_hz": rates,
        "client_cpu_ms": cpu,
        "median_hz": {who: median(found) for who, found in rates.items()},
        "ratio": median(rates["into the ring"]) / median(rates["bridge alone"]),
        "ratios_of_rounds": ratios,
        "machine": machine.describe(),
    }


def check_frame(batch: Batch) -> None:
    """Check that the last frame of `batch` is the one that was written for its train."""
    counts = np.random.default_rng(0).poisson(3.0, SHAPE).astype(np.uint16)
    train = int(batch.ids[-1]) - 10_000  # of the example writer, the first
    if not np.array_equal(batch.arrays["frame"][-1], np.roll(counts, train, axis=0)):
        raise PipelineError(f"the frame of train {train} is not the one that was written")
