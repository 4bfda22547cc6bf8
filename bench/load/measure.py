"""One measurement: a generator, a chain (or nothing), the times of every item."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.bench.load.memory import Memory
from phasewatch.bench.load.plan import TIMES, Load
from phasewatch.bench.load.sink import LatencySink, read_times
from phasewatch.bench.load.source import LoadSource
from phasewatch.bench.load.verdict import Facts, Generator
from phasewatch.bench.load.workload import Workload, discard, loaded
from phasewatch.pipeline.config import Config
from phasewatch.pipeline.documents import RunStop
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View

GRACE_S = 5.0
Update = Callable[[View], None]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one run gave.

    Attributes
    ----------
    times
        Columns of the latency sink, each (n,) int64.
    generator
        (2, n) ns: due and announced; None where it did not come to its end.
    real_time
        Whether the generator ran under real-time scheduling (it needs the permission).
    """

    load: Load
    config: Config
    times: dict[str, NDArray[np.int64]]
    generator: NDArray[np.int64] | None
    real_time: bool
    stop: RunStop | None
    error: str | None
    memory: dict[str, Any]

    @property
    def duration_s(self) -> float:
        """From the first item due to the last one due; single-stream: delivered."""
        if not self.times:
            return 0.0
        last = "delivered" if self.load.scenario != "server" else "due"
        return float(self.times[last].max() - self.times["due"].min()) / 1e9

    def facts(self, p99_ms: float | None, null_p99_ms: float | None) -> Facts:
        """Return what the verdict rests on."""
        return Facts(
            scenario=self.load.scenario,
            n=self.load.n,
            error=self.error,
            frames=self.stop.loss.model_dump(mode="json") if self.stop else {},
            kept=len(self.times.get("seq", ())),
            lossless=self.config.runtime.mode == "lossless",
            duration_s=self.duration_s,
            generator=None if self.generator is None else Generator.of(self.generator),
            p99_ms=p99_ms,
            null_p99_ms=null_p99_ms,
        )


def run_chain(
    workload: Workload, load: Load, folder: Path, on_update: Update = lambda view: None
) -> Measured:
    """Give `load` to the chain of `workload`; its sockets and times are in `folder`, made anew."""
    load.write(folder)
    times = folder / "latency.h5"
    config = loaded(workload, folder, times, answer=load.scenario == "single-stream")
    pids: dict[str, int] = {}
    memory = Memory(pids, time.monotonic_ns)
    began = False

    def update(view: View) -> None:
        nonlocal began
        if not began and view.health.get("receiver", {}).get("received"):
            began = True
            memory.clear()
        memory.sample()
        on_update(view)
        check(process)

    discard(config)
    try:
        with generator(folder) as process:
            real_time = os.sched_getscheduler(process.pid) == os.SCHED_FIFO
            outcome = supervise(config, on_update=update, on_start=pids.update)
    finally:
        discard(config)
    return Measured(
        load=load,
        config=config,
        times=read_times(times) if times.exists() else {},
        generator=_generated(folder),
        real_time=real_time,
        stop=outcome.stop,
        error=outcome.error,
        memory=memory.summary(),
    )


def run_null(load: Load, folder: Path) -> dict[str, NDArray[np.int64]]:
    """Give `load` to nothing: generator, source and sink alone, in this process; return times.

    Items are copied from the store as for the chain, one batch after the other, into the same
    memory again and again, as into a ring.
    """
    load.write(folder)
    times = folder / "latency.h5"
    answer = str(folder) if load.scenario == "single-stream" else ""
    with generator(folder) as process:
        source, sink = LoadSource(folder), LatencySink(times, answer)
        try:
            run = source.start()
            ring = {
                name: np.empty((load.at_once, *spec.shape), spec.dtype)
                for name, spec in run.items.items()
            }
            source.lend(lambda n: {name: array[:n] for name, array in ring.items()})
            for batch in source:
                if batch is None:
                    check(process)
                else:
                    sink.batch(batch)
        finally:
            sink.close()
            source.close()
    return read_times(times)


@contextmanager
def generator(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the generator of the load in `folder`, which ends with the block at the latest.

    It has real-time priority where that is allowed. (On two busy cores, 500 Hz: 1.9 % of the items
    later than 1 ms instead of 13 %; niceness does not help.)
    """
    module = "phasewatch.bench.load.generator"
    command = [sys.executable, "-m", module, str(folder), str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    with suppress(PermissionError):  # a detector is not delayed by what this host computes
        os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield process
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def check(process: "subprocess.Popen[bytes]") -> None:
    """Raise where the generator has failed: its load would never end."""
    if process.poll():
        raise PipelineError(f"the load generator ended early (exit code {process.returncode})")


def _generated(folder: Path) -> NDArray[np.int64] | None:
    path = folder / TIMES
    return np.load(path) if path.exists() else None
