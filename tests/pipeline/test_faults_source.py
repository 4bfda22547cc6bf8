"""Sources that disconnect, return and misnumber; runs side by side; a clock that leaps."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.bodies import StopBody
from phasewatch.pipeline.documents import ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.messages import encode, encode_batch, encode_start

pytestmark = pytest.mark.timeout(120)
HOUR = 3600 * 10**9


class Proxy:
    """Passes on what comes to `port` to another port, until it is cut."""

    def __init__(self, to: int) -> None:
        self.to, self.port = to, 0
        self._ends: list[socket.socket] = []
        self._closing, self._wake = socket.socketpair()
        self.open()

    def open(self) -> None:
        """Let connections in."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._ends = [listener]
        self._thread = threading.Thread(target=self._serve, args=(listener,))
        self._thread.start()

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._wake.send(b"x")
        self._thread.join()
        for end in self._ends:
            end.close()

    def close(self) -> None:
        self.cut()
        self._wake.close()
        self._closing.close()

    def _serve(self, listener: socket.socket) -> None:
        other: dict[socket.socket, socket.socket] = {}
        while True:
            ready, _, _ = select.select([self._closing, *self._ends], [], [])
            if self._closing in ready:
                self._closing.recv(1)
                return
            for end in [end for end in ready if end in self._ends]:
                if end is listener:
                    here, there = listener.accept()[0], socket.socket()
                    there.connect(("127.0.0.1", self.to))
                    other |= {here: there, there: here}
                    self._ends += [here, there]
                    continue
                data = b""
                with contextlib.suppress(ConnectionError):
                    data = end.recv(1 << 16)
                    other[end].sendall(data)
                if not data and end in self._ends:
                    for gone in (end, other[end]):
                        self._ends.remove(gone)
                        gone.close()


class Detector:
    """Publishes patterns with ids; knows whether anybody listens."""

    def __init__(self, context: "zmq.Context[Any]") -> None:
        self._context = context
        self.axis = np.linspace(5.0, 20.0, 64)
        self.start()

    def start(self) -> None:
        self.socket = self._context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.bind("tcp://127.0.0.1:*")
        self.port = int(self.socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").split(b":")[-1])

    def said(self, what: bytes) -> bool:
        """Tell whether a subscriber has come (1) or gone (0)."""
        return bool(self.socket.poll(0)) and self.socket.recv() == what

    def announce(self) -> None:
        items = {"intensity": ItemSpec.of((64,), "f4")}
        run = RunStart(
            run_id="theirs",
            source="detector",
            items=items,
            unit="2th_deg",
            constants={"axis": self.axis},
        )
        self.socket.send_multipart(encode_start(run))

    def send(self, *ids: int) -> None:
        for i in ids:
            one = np.array([i])
            pattern = np.exp(-((self.axis - 8 - i % 64 / 16) ** 2)).astype(np.float32)[None]
            batch = Batch(one, one, None, {"intensity": pattern})
            self.socket.send_multipart(encode_batch("theirs", batch))

    def stop(self) -> None:
        stop = RunStop(run_id="theirs", reason="end of run", loss=Loss())
        self.socket.send_multipart(encode(StopBody(stop=stop)))


@pytest.fixture
def detector() -> Iterator[Detector]:
    with zmq.Context() as context:
        detector = Detector(context)
        yield detector
        detector.socket.close()


@pytest.fixture
def proxy(detector: Detector) -> Iterator[Proxy]:
    proxy = Proxy(detector.port)
    yield proxy
    proxy.close()


def test_a_source_that_disconnects_and_misnumbers(
    ramps: Any, play: Any, detector: Detector, proxy: Proxy
) -> None:
    config = ramps.configure()
    uri = {"uri": f"zmq:tcp://127.0.0.1:{proxy.port}", "socket": "sub"}
    config = config.model_copy(update={"source": config.source.model_validate(uri)})

    def act(run: Any) -> Any:
        def received(n: int) -> Any:
            return run.until(lambda: run.number("receiver", "received") == n)

        yield from run.until(lambda: detector.said(b"\1"))
        detector.announce()
        detector.send(*range(50))
        yield from received(50)
        proxy.cut()
        yield from run.until(lambda: detector.said(b"\0"))
        detector.send(*range(50, 80))  # nobody there
        proxy.open()
        yield from run.until(lambda: detector.said(b"\1"))
        detector.send(*range(80, 100))
        yield from received(70)
        before = detector.socket  # the detector's computer is started again
        detector.start()
        proxy.to = detector.port
        before.close()
        yield from run.until(lambda: detector.said(b"\1"))
        detector.announce()
        detector.send(*range(110, 120))
        detector.send(119, 118)  # twice
        detector.send(125, 123, 121)  # out of order; 120, 122, 124 are missing
        detector.send(122)  # late
        yield from received(86)
        detector.stop()

    loss = ramps.run(config, play(act, stop=False)).stop.loss
    ids = [*range(50), *range(80, 100), *range(110, 120), 119, 118, 125, 123, 121, 122]
    assert [d["id"] for d in ramps.items()] == ids
    assert [d["seq"] for d in ramps.items()] == list(range(86))
    assert (loss.received, loss.classified) == (86, 86)
    assert loss.missed == 30 + 10 + 2


def test_a_run_drains_while_the_next_one_is_there(ramps: Any, play: Any, tmp_path: Path) -> None:
    """The same configuration twice at the same time, but for the file of the result."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    held = {"type": "lines", "path": "lines.json", "gate": str(gate), "gate_at": 60}
    first = ramps.configure(sink=[held])
    sink = first.sink[0].model_copy(update={"path": f"{tmp_path}/b.json", "gate": ""})
    second = first.model_copy(update={"sink": (sink,)})
    over = threading.Event()

    def drain(run: Any) -> Any:
        yield from run.until(lambda: run.number("receiver", "in_flight") == 64)
        run.request_stop()
        yield from run.until(lambda: bool(run.view.stopping) and over.is_set())
        yield from run.open_gate(gate)

    def pass_by(run: Any) -> Any:
        yield from run.until(lambda: bool(old.view.stopping))
        yield from run.progress(100)

    old, new = play(drain, stop=False), play(pass_by)

    def second_run() -> Any:
        try:
            return ramps.run(second, new)
        finally:
            over.set()

    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(second_run)
        outcome = ramps.run(first, old)
    ramps.check_whole(first, outcome)
    assert outcome.stop.reason == later.result().stop.reason == "stopped by request"
    assert outcome.stop.run_id != later.result().stop.run_id
    seqs = [d["seq"] for d in ramps.items("b.json")]
    assert seqs == list(range(later.result().stop.loss.received))


@pytest.mark.parametrize("n", [0, 300])
def test_of_unknown_length_at_a_clock_that_leaps(ramps: Any, play: Any, n: int) -> None:
    """The supervisor's clock goes on and back by hours: nobody is thought to hang."""
    leap = 0

    def act(run: Any) -> Any:
        nonlocal leap
        for ahead in (HOUR, -2 * HOUR, 5 * HOUR):
            leap = ahead
            yield from run.heard("tracker", 1)

    played = play(act, stop=False)
    config = ramps.configure(n=300, announce=False)
    source = config.source.model_copy(update={"uri": f"ramp:{n}"})
    config = config.model_copy(update={"source": source})
    outcome = ramps.run(config, played, clock=lambda: time.monotonic_ns() + leap)
    assert outcome.stop.reason == "end of run"
    assert outcome.stop.loss.received == n
    assert played.view.book.restarts == {}
    if n:
        ramps.check_whole(config, outcome)
