"""Workers of another host are sent frames as they came compressed, and compute the same bits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from phasewatch.pipeline.bodies import CreditBody, LeaveBody
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.messages import Message, encode
from phasewatch.pipeline.packing import Unpacker
from phasewatch.pipeline.plugin import open_sink, open_source
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.transport.links import Link, Transport

from .geometry import PONI

pytestmark = [pytest.mark.usefixtures("thirdparty"), pytest.mark.timeout(240)]
N, SHAPE = 400, (60, 64)


def configure(folder: Path, filters: dict[str, Any], listen: str) -> Config:
    (folder / "geometry.poni").write_text(PONI)
    frames = np.random.default_rng(1).poisson(0.8, (N, *SHAPE)).astype(np.uint16)
    with h5py.File(folder / "frames.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, *SHAPE), **filters)
    gate = {"gate": str(folder / "gate"), "gate_at": 20}
    tables = {
        "source": {"uri": f"hdf5:{folder / 'frames.h5'}#frames", "flip": True},
        "calibration": {"poni": "geometry.poni"},
        "reduce": {"n_bins": 64, "baseline": {"method": "asls", "lam": 1e3}},
        "runtime": {"listen": listen, "ring": 64, "resend_s": 0.5},
        "sink": [{"type": "lines", "path": "lines.json", **gate}],
    }
    return parse_config(tables, name="test", folder=folder)


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Any]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(config: Config) -> None:
        code = "import sys; from phasewatch.pipeline.cli import main; sys.exit(main())"
        options = ["worker", "--connect", str(config.runtime.listen)]
        processes.append(subprocess.Popen([sys.executable, "-c", code, *options], cwd="/"))

    yield start
    for process in processes:
        assert process.wait(60) == 0


class HandMade:
    """A worker that takes one order and leaves."""

    def __init__(self, transport: Transport, config: Config, name: bytes, codecs: Any) -> None:
        host, _, port = str(config.runtime.listen).rpartition(":")
        self._transport, self._codecs = transport, codecs
        address = f"{host}:{int(port) + 1}"
        self.link: Link = transport.link("dealer", address, bind=False, identity=name)
        self.ask()

    def ask(self) -> None:
        self.link.offer(encode(CreditBody(n=1, local=False, codecs=self._codecs)))

    def heard(self) -> list[Message]:
        self._transport.poll([self.link], 0)
        return [message for _, message in self.link.drain(10)]

    def leave(self) -> None:
        self.link.offer(encode(LeaveBody()))


@pytest.mark.parametrize("codec", ["deflate", "bitshuffle-lz4"])
def test_compressed_frames_stay_so_between_hosts(
    codec: str, listen: str, play: Any, worker: Any, tmp_path: Path
) -> None:
    filters = {"deflate": {"compression": "gzip"}, "bitshuffle-lz4": {**hdf5plugin.Bitshuffle()}}
    config = configure(tmp_path, filters[codec], listen)
    os.mkfifo(tmp_path / "gate")
    worker(config)
    sent: dict[str, Any] = {}

    def act(run: Any) -> Any:
        def guest(name: str) -> int:
            histories = run.view.book.histories
            said = [h[-1].data.get(name, -1) for role, h in histories.items() if "@" in role]
            return max(said, default=-1)

        yield from run.until(lambda: guest("unpacked") >= 0 and run.number("receiver", "received"))
        yield from run.signal("reducer-0", signal.SIGSTOP)
        with Transport(linger_s=2) as transport:
            plain = HandMade(transport, config, b"reducer@plain", ())
            takes = HandMade(transport, config, b"reducer@takes", (codec,))
            yield from run.open_gate(tmp_path / "gate")
            while {"batch", "packed"} - sent.keys():
                for one in (plain, takes):
                    for message in one.heard():
                        kind = message.body.type
                        assert one is takes or kind != "packed"
                        if kind == "start" and one is takes:
                            sent["packing"] = message.body.packing
                        if kind == "batch" and one is takes:  # read before it came
                            one.ask()
                        elif kind in ("batch", "packed"):
                            sent[kind] = message
                            one.leave()
                yield
        yield from run.until(lambda: guest("unpacked") > 100)
        yield from run.signal("reducer-0", signal.SIGCONT)
        assert guest("rejected") == 0

    script = play(act, stop=False)
    outcome = supervise(config, on_update=script, on_start=script.start)
    assert outcome.error is None
    loss = outcome.stop.loss
    assert (loss.received, loss.classified, loss.failed, loss.missed) == (N, N, 0, 0)

    source = open_source(config.source.uri, flip=True)
    stages = reduce_stages(config, source.start())
    replay(source, stages, open_sink("lines", path=str(tmp_path / "alone.json")))
    apart, alone = ((tmp_path / f"{n}.json").read_text().splitlines() for n in ("lines", "alone"))
    assert [x for x in apart if '"seq"' in x] == [x for x in alone if '"seq"' in x]

    raw, packed = sent["batch"], sent["packed"]
    source = open_source(config.source.uri, flip=True)
    spec = source.start().items["frame"]
    source.close()
    frames = raw.batch().arrays["frame"]
    bare, chunks = packed.batch(), packed.packed(1)
    batch, failures = Unpacker(sent["packing"], spec).batch(bare, chunks)
    assert failures == ()
    with h5py.File(tmp_path / "frames.h5") as file:
        np.testing.assert_array_equal(batch.arrays["frame"], file["frames"][:][bare.seq, ::-1])
        np.testing.assert_array_equal(frames, file["frames"][:][raw.batch().seq, ::-1])
    per_frame = sum(c.nbytes for (c,) in chunks) / len(bare)
    print("bytes a frame:", per_frame, "of", frames[0].nbytes)
    assert per_frame < 0.5 * frames[0].nbytes
