"""One run as files, streamed by EXtra-data, and as recorded traffic: the same results, each bit."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from extra_data.tests.mockdata import write_file
from extra_data.tests.mockdata.detectors import AGIPDModule

from phasewatch.bench.load.record import record
from phasewatch.models import fresh
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.build import classify_stage, reduce_stages
from phasewatch.pipeline.chain import Chain
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.documents import Event, RunStart, RunStop
from phasewatch.pipeline.plugin import Source, open_source
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.stages.track import Track
from phasewatch.plugins.raw_socket import RawSocket

from .bridge import idle, take
from .euxfel import FIRST, KEY, SOURCE, write_images

N, SHAPE = 11, (40, 50)
CLASSES = ("before", "during", "after")


@contextmanager
def served(run: Path, *options: str) -> Iterator[str]:
    """Stream `run` with EXtra-data's own command; yield where."""
    command = Path(sys.executable).with_name("karabo-bridge-serve-files")
    process = subprocess.Popen(
        [command, run, "tcp://127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": ""},
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said.startswith("Streamer started on: "), said
        yield said.split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which rings move, of two files, with a train that is missing between them."""
    y, x = np.indices(SHAPE)
    radius = np.hypot(y - 10, x + 20)
    rings = [40 + 900 * np.exp(-(((radius - 30 - n / 2) / 2) ** 2)) for n in range(N)]
    frames = np.random.default_rng(7).poisson(rings).astype(np.uint16)
    write_images(tmp_path / "run", frames[:7])
    write_images(tmp_path / "run", frames[7:], part=1, first=FIRST + 8)
    return tmp_path / "run"


@pytest.fixture
def config(tmp_path: Path, run: Path) -> Config:
    """A chain from frames to phases; its network has seeded weights that were never trained."""
    (tmp_path / "p.poni").write_text(
        "poni_version: 2\nDetector: Detector\n"
        'Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": null}\n'
        "Distance: 0.1\nPoni1: 0.001\nPoni2: -0.002\nRot1: 0.0\nRot2: 0.0\nRot3: 0.0\n"
        "Wavelength: 4.836e-11\n"
    )
    tables: dict[str, Any] = {
        "source": {"uri": f"extra-data:{run}#{SOURCE},{KEY}"},
        "calibration": {"poni": "p.poni"},
        "reduce": {"n_bins": 64, "unit": "2th_deg", "baseline": {"method": "asls", "lam": 1e3}},
    }
    config = parse_config(tables, name="test", folder=tmp_path)
    source = open_source(config.source.uri)
    start = source.start()
    frames = np.stack([frame for _, frame in take(source)])
    chain = Chain(reduce_stages(config, start))
    reduced = chain.start(start)
    patterns = chain.process(Batch(np.arange(N), np.arange(N), None, {"frame": frames}))
    fresh.save(
        tmp_path / "model",
        "fcnn",
        patterns=patterns.arrays["intensity"],
        axis=reduced.constants["axis"],
        unit="2th_deg",
        baseline=reduced.settings["baseline"],
        normalise=reduced.settings["normalise"],
        classes=CLASSES,
        seed=0,
    )
    tables["classifier"] = {"model": "model"}
    return parse_config(tables, name="test", folder=tmp_path)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failed: list[Failure] = []
        self.events: list[Event] = []
        self.stopped: RunStop | None = None

    def start(self, run: RunStart) -> None: ...

    def batch(self, batch: Batch) -> None:
        self.batches.append(batch)

    def failures(self, failures: Sequence[Failure]) -> None:
        self.failed += failures

    def dropped(self, items: Sequence[tuple[int, int]], reason: str) -> None: ...

    def event(self, event: Event) -> None:
        self.events.append(event)

    def stop(self, stop: RunStop) -> None:
        self.stopped = stop

    def close(self) -> None: ...

    def columns(self) -> dict[str, np.ndarray]:
        columns = [{"seq": b.seq, "ids": b.ids, **b.arrays} for b in self.batches]
        return {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}


def results(source: Source, config: Config) -> Kept:
    """Return what the chain makes of `source`."""

    class Started:
        """The source, started already: the chain's stages depend on what it says."""

        def start(self) -> RunStart:
            return start

        def __iter__(self) -> Iterator[Batch | Failure | None]:
            return iter(source)

        def close(self) -> None:
            source.close()

    start = source.start()
    stages = [*reduce_stages(config, start), classify_stage(config), Track()]
    sink = Kept()
    replay(Started(), stages, sink)
    return sink


def assert_equal(one: Kept, other: Kept) -> None:
    a, b = one.columns(), other.columns()
    assert a.keys() == b.keys() >= {"intensity", "probability", "label", "novelty", "phase"}
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)
    assert one.stopped is not None
    assert other.stopped is not None
    assert one.stopped.zones == other.stopped.zones
    assert one.stopped.confidence == other.stopped.confidence
    assert one.stopped.loss.missed == other.stopped.loss.missed == 1
    assert [(e.kind, e.seq, e.id) for e in one.events] == [
        (e.kind, e.seq, e.id) for e in other.events
    ]


@pytest.mark.parametrize("kind", ["REQ", "PULL"])
def test_files_stream_and_recording_give_the_same(
    run: Path, config: Config, tmp_path: Path, kind: str
) -> None:
    options = {"name": SOURCE, "key": KEY}
    files = results(open_source(config.source.uri), config)
    assert len(files.columns()["seq"]) == N
    assert not files.failed

    with served(run, "-z", {"REQ": "REP", "PULL": "PUSH"}[kind]) as endpoint:
        source = open_source(f"karabo-bridge:{endpoint}", type=kind, **options)
        idle(source, after=N)
        assert_equal(results(source, config), files)

    recorded = tmp_path / "run.wire"
    with served(run, "-z", "PUSH") as endpoint, RawSocket("pull", endpoint, hwm=2) as socket:
        assert record(socket, recorded, messages=N)[0] == N
    source = open_source(
        f"wire:{recorded}", via="karabo-bridge", options=options | {"type": "PULL"}
    )
    assert_equal(results(source, config), files)


def test_modules_in_files_are_the_appended_modules_of_the_bridge(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    rng = np.random.default_rng(3)
    for module in range(16):
        device = AGIPDModule(f"SPB_DET_AGIPD1M-1/DET/{module}CH0", raw=False, frames_per_train=3)
        path = tmp_path / "run" / f"CORR-R0238-AGIPD{module:02d}-S00000.h5"
        write_file(path, [device], 2, FIRST, 6, "1.0")
        with h5py.File(path, "r+") as file:
            data = file[f"INSTRUMENT/{device.device_id}:xtdf/image/data"]
            data[...] = rng.random(data.shape, np.float32)
    source = open_source(
        f"extra-data:{tmp_path / 'run'}#SPB_DET_AGIPD1M-1/DET/*CH0:xtdf,image.data"
    )
    assert source.start().items["frame"].shape == (16 * 512, 128)
    files = take(source)
    with served(tmp_path / "run", "--append-detector-modules") as endpoint:
        source = open_source(
            f"karabo-bridge:{endpoint}", name="SPB_DET_AGIPD1M-1/DET/APPEND", axes="pmyx"
        )
        source.start()
        bridge = take(source, 6)
        source.close()
    assert [n for n, _ in bridge] == [n for n, _ in files] == list(range(30_000, 30_006))
    for (_, mine), (_, other) in zip(files, bridge, strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)
