"""A third party's plug-ins, as a distribution of its own beside the project; faults at will."""

import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.build import classify_stage, reduce_stages
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.plugin import open_sink, open_source
from phasewatch.pipeline.processes.supervisor import Outcome, supervise
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.links import Transport

MODULE = '''
import json
import os
import numpy as np
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import ItemSpec, RunStart


def open_source(
    target, *, endless: bool = False, bad="", t_acq=False, announce=True, size: int = 1,
    stream: bool = False
):
    return (Stream if stream else Ramp)(
        int(target), endless, json.loads(bad or "{}"), t_acq, announce, size
    )


class Ramp:
    """Patterns of a peak that moves; `bad` maps an index to what is wrong with it."""

    def __init__(self, n, endless, bad, t_acq, announce, size):
        self.n, self.endless, self.t_acq, self.size = n, endless, t_acq, size
        self.announce = announce and not endless
        self.bad = {int(k): v for k, v in bad.items()}
        self.open, self.first = True, 0

    def start(self):
        return RunStart(
            run_id="ramp",
            source=f"ramp:{self.n}",
            items={"intensity": ItemSpec.of((64,), "f4")},
            unit="2th_deg",
            expected=self.n if self.announce else None,
            constants={"axis": np.linspace(5.0, 20.0, 64)},
        )

    def __iter__(self):
        axis = np.linspace(5.0, 20.0, 64)
        i = self.first
        while self.open and (self.endless or i < self.n):
            kind = self.bad.get(i)
            if kind == "unreadable":
                yield Failure(i, i, "source", f"item {i}: cannot be read")
            elif kind != "skip":
                y = np.exp(-((axis - 8 - i % 64 / 16) ** 2)).astype(np.float32)[None]
                y = y + np.random.default_rng(i).random((1, 64), np.float32) / 50
                if kind == "nan":
                    y[:] = np.nan
                elif kind == "shape":
                    y = y[:, :63]
                elif kind == "dtype":
                    y = y.astype(np.float64)
                elif kind == "raise":
                    raise OSError(f"disk gone at item {i}")
                elif kind == "bug":
                    raise KeyError("no such thing")
                elif kind == "mute":
                    raise RuntimeError
                ids = np.arange(i, i + self.size)
                y = np.repeat(y, self.size, axis=0)
                yield Batch(ids, ids, 10 * ids if self.t_acq else None, {"intensity": y})
                yield Batch(ids[:0], ids[:0], None, {"intensity": y[:0]})
            i += self.size

    def resume(self, run, n):
        self.first = n

    def close(self):
        self.open = False


class Stream(Ramp):
    """As from a detector: who comes again has missed what came meanwhile."""

    resume = None

    def start(self):
        with open(os.environ["RAMP_STARTS"], "a+") as file:
            file.seek(0)
            self.first = 100_000 * len(file.read())
            file.write("x")
        return super().start()


def open_sink(*, path, fail_at=-1, gate="", gate_at: int = 0):
    return Lines(path, fail_at, gate, gate_at)


class Lines:
    """Writes one JSON line per document; at item `gate_at` it hangs until FIFO `gate` is opened."""

    def __init__(self, path, fail_at, gate, gate_at):
        self.file, self.fail_at, self.n = open(path, "w"), fail_at, 0
        self.gate, self.gate_at = gate, gate_at

    def _write(self, **document):
        self.file.write(json.dumps(document) + "\\n")
        self.file.flush()

    def start(self, run):
        self._write(start=run.model_dump(mode="json"))

    def batch(self, batch):
        for i in range(len(batch)):
            if self.n == self.fail_at:
                raise OSError(28, "No space left on device", "lines.json")
            if self.gate and self.n >= self.gate_at:
                open(self.gate).close()
                self.gate = ""
            self.n += 1
            arrays = {k: v[i].tobytes().hex() for k, v in batch.arrays.items()}
            self._write(seq=int(batch.seq[i]), id=int(batch.ids[i]), arrays=arrays,
                        t_acq=None if batch.t_acq is None else int(batch.t_acq[i]))

    def failures(self, failures):
        for f in failures:
            self._write(failed=f.seq, id=f.id, stage=f.stage, error=f.error)

    def dropped(self, items, reason):
        for seq, i in items:
            self._write(dropped=seq, id=i, reason=reason)

    def event(self, event):
        self._write(event=event.model_dump(mode="json"))

    def stop(self, stop):
        self._write(stop=stop.model_dump(mode="json"))

    def close(self):
        self.file.close()
'''

METADATA = """Metadata-Version: 2.1
Name: thirdparty-phasewatch
Version: 1.0
"""

ENTRY_POINTS = """
[phasewatch.sources]
ramp = thirdparty_phasewatch:open_source
[phasewatch.sinks]
lines = thirdparty_phasewatch:open_sink
[phasewatch.commands]
broken = thirdparty_phasewatch:no_such_function
"""


@pytest.fixture
def thirdparty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plug-ins above for this process and its children."""
    site = tmp_path / "site"
    info = site / "thirdparty_phasewatch-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "thirdparty_phasewatch.py").write_text(MODULE)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("RAMP_STARTS", str(tmp_path / "starts"))
    return site


Wait = Generator[None, None, None]


class Play:
    """A run that is interfered with: a generator that goes on whenever the supervisor has news.

    Where the generator is at its end the run is stopped (`stop`), unless it ended by itself.
    """

    def __init__(self, act: Callable[["Play"], Wait], *, stop: bool = True) -> None:
        self.view = View("", "")
        self.pids: dict[str, int] = {}
        self.words: dict[str, int] = {}  # health reports so far
        self.most: dict[tuple[str, str], float] = {}  # of each number in them
        self.over = False
        self._seen: dict[str, dict[str, Any]] = {}
        self._act, self._stop = act(self), stop

    def start(self, pids: dict[str, int]) -> None:
        self.pids = dict(pids)

    def __call__(self, view: View) -> None:
        self.view = view
        for role, report in view.health.items():
            if self._seen.get(role) is not report:
                self._seen[role] = report
                self.words[role] = self.words.get(role, 0) + 1
                for name, value in report.items():
                    if isinstance(value, int | float):
                        self.most[role, name] = max(self.most.get((role, name), 0), value)
        if not self.over:
            try:
                next(self._act)
            except StopIteration:
                self.over = True
                if self._stop:
                    self.request_stop()

    def request_stop(self) -> None:
        with Transport(linger_s=1) as transport:
            link = transport.link("dealer", self.view.control, bind=False)
            link.send(encode(ControlBody(what="stop")))

    def number(self, role: str, name: str) -> int:
        return int(self.view.health.get(role, {}).get(name, 0))

    def until(self, true: Callable[[], bool]) -> Wait:
        while not true():
            yield

    def progress(self, n: int) -> Wait:
        """Wait until the sinks have `n` more items."""
        goal = self.number("sink", "written") + n
        yield from self.until(lambda: self.number("sink", "written") >= goal)

    def heard(self, role: str, n: int) -> Wait:
        """Wait until `role` has said `n` more times how it is."""
        goal = self.words.get(role, 0) + n
        yield from self.until(lambda: self.words.get(role, 0) >= goal)

    def signal(self, role: str, number: int) -> Wait:
        """Send a signal; where the process is not back yet since the last, later."""
        while True:
            try:
                os.kill(self.pids[role], number)
            except ProcessLookupError:
                yield
            else:
                return

    def kill(self, role: str) -> Wait:
        """Kill `role` and wait for the one that comes in its place."""
        yield from self.signal(role, signal.SIGKILL)
        dead = self.pids[role]
        yield from self.until(lambda: self.pids[role] != dead)

    def open_gate(self, gate: Path) -> Wait:
        """Let the sink go on that hangs at `gate`; wait until it does."""
        while True:
            try:
                os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                yield
            else:
                return


class Ramps:
    """Runs of the source `ramp` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.baseline = folder, {"method": "asls", "lam": 1e3}

    def configure(
        self,
        model: Path | None = None,
        *,
        n: int | None = None,
        runtime: dict[str, Any] | None = None,
        sink: list[dict[str, Any]] | None = None,
        **source: Any,
    ) -> Config:
        """Return a configuration for `n` items; None: until the run is stopped."""
        tables: dict[str, Any] = {
            "source": {"uri": f"ramp:{n or 1}", "endless": n is None, **source},
            "reduce": {"baseline": self.baseline},
            "runtime": {"reducers": 2, "restarts": 1000, "ring": 64, "resend_s": 0.5},
            "sink": sink or [{"type": "lines", "path": "lines.json"}],
        }
        tables["runtime"] |= runtime or {}
        if model is not None:
            tables["classifier"] = {"model": str(model), "max_wait_ms": 0}
        return parse_config(tables, name="test", folder=self.folder)

    def run(self, config: Config, play: Play | None = None, **options: Any) -> Outcome:
        """Run to the end, without an error; check the loss table."""
        acts = {} if play is None else {"on_update": play, "on_start": play.start}
        outcome = supervise(config, **acts, **options)
        assert outcome.error is None
        assert outcome.stop is not None
        assert play is None or play.over
        loss = outcome.stop.loss
        assert loss.received + loss.missed + loss.not_read == loss.expected
        assert loss.classified + loss.failed + sum(loss.dropped.values()) == loss.received
        if play is not None:  # for docs/reliability.md: pytest -rP
            counts = {k: v for k, v in loss.model_dump().items() if v}
            for role, name in (("receiver", "resent"), ("tracker", "twice"), ("sink", "dropped")):
                counts[name + " by " + role] = int(play.most.get((role, name), 0))
            refused = sum(int(v) for (_, name), v in play.most.items() if name == "rejected")
            print("counts:", counts, "refused", refused, "restarts", play.view.book.restarts)
        return outcome

    def lines(self, name: str = "lines.json") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def items(self, name: str = "lines.json") -> list[dict[str, Any]]:
        return [line for line in self.lines(name) if "seq" in line]

    def undisturbed(self, config: Config, n: int, **options: Any) -> list[dict[str, Any]]:
        """Return what `n` items of the ramp, with its `options`, give in one process."""
        source = open_source(f"ramp:{n}", **options)
        stages = [*reduce_stages(config, source.start())]
        if config.classifier is not None:
            stages += [classify_stage(config), Track(**config.track.model_dump())]
        replay(source, stages, open_sink("lines", path=str(self.folder / "alone.json")))
        return self.lines("alone.json")

    def check_whole(self, config: Config, outcome: Outcome) -> None:
        """Every item once, none lost, the same bits as undisturbed."""
        loss = outcome.stop.loss
        assert loss.received == loss.classified
        assert (loss.failed, loss.dropped, loss.missed) == (0, {}, 0)
        alone = self.undisturbed(config, loss.received)
        apart = self.lines()
        for kind in ("seq", "event"):
            assert [d for d in apart if kind in d] == [d for d in alone if kind in d]
        stop = alone[-1]["stop"]
        assert [zone.model_dump() for zone in outcome.stop.zones] == stop["zones"]
        assert outcome.stop.confidence == stop["confidence"]


@pytest.fixture
def ramps(thirdparty: Path, tmp_path: Path) -> Ramps:
    return Ramps(tmp_path)


@pytest.fixture
def model(ramps: Any, tmp_path: Path) -> Path:
    """A classifier of the ramp's two halves."""
    from phasewatch.models import save
    from phasewatch.models.labels import Labels
    from phasewatch.models.series import Series
    from phasewatch.models.training import Recipe, train

    source = open_source("ramp:64")
    chain = reduce_stages(ramps.configure(), run := source.start())
    for stage in chain:
        run = stage.start(run)
    rows = []
    for batch in source:
        if len(batch):
            for stage in chain:
                batch = stage.process(batch)
            rows.append(batch.arrays["intensity"][0])
    index = np.arange(64)
    series = Series(
        axis=run.constants["axis"],
        unit="2th_deg",
        intensity=np.stack(rows),
        ids=index,
        index=index,
        digest="0" * 64,
        source="test",
        baseline={"p": 0.002, "n_iter": 10, **ramps.baseline},
        normalise="minmax",
    )
    labels = Labels(np.array([2, 10, 50, 60]), np.array([0, 0, 1, 1]), ("before", "after"))
    save(tmp_path / "model", *train(series, labels, model="fcnn", recipe=Recipe(epochs=3)))
    return tmp_path / "model"


@pytest.fixture
def listen() -> str:
    """Return the address of the first of three free ports, on another address of this host."""
    for _ in range(100):
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            a.bind(("127.0.0.2", 0))
            first = int(a.getsockname()[1])
            try:
                b.bind(("127.0.0.2", first + 1))
                c.bind(("127.0.0.2", first + 2))
            except (OSError, OverflowError):
                continue
            return f"tcp://127.0.0.2:{first}"
    raise AssertionError("no three free ports in a row")


@pytest.fixture
def play() -> type[Play]:
    return Play
