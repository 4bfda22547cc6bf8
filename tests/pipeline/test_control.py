"""What users ask of a run that goes on: to begin the tracker anew, to go on with another model."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.config import (
    CalibrationConfig,
    Config,
    ReduceConfig,
    SinkConfig,
    SourceConfig,
)
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError, one_line
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.processes.control import (
    PATIENCE_NS,
    Control,
    changed,
    following,
    next_path,
)
from phasewatch.pipeline.processes.note import note_of
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.links import Link, Transport
from phasewatch.pipeline.transport.ring import Ring, new_memory

from .geometry import PONI


def predictions(*labels: int) -> Batch:
    seq = np.arange(len(labels))
    probability = np.eye(2, dtype=np.float32)[list(labels)]
    novelty = np.zeros(len(labels), np.float32)
    return Batch(seq, seq + 100, None, {"probability": probability, "novelty": novelty})


def test_a_tracker_that_begins_anew_forgets_and_says_so() -> None:
    run = RunStart(run_id="r", source="a:b", items={}, classes=("before", "after"))
    track, fresh = Track(), Track()
    track.start(run)
    fresh.start(run)
    track.process(predictions(0, 0, 1, 0, 1, 1, 1))
    track.take_events()
    assert track.reset(1)
    track.process(predictions().select(slice(0, 0)))  # nothing: it is still due
    later = predictions(0, 0, 0, 1, 1)
    assert np.array_equal(
        track.process(later).arrays["posterior"], fresh.process(later).arrays["posterior"]
    )
    assert (track.state, track.zones) == (fresh.state, fresh.zones)
    event, *others = track.take_events()
    assert (event.kind, event.seq, event.id, event.phase) == ("reset", 0, 100, -1)
    assert others == fresh.take_events()
    assert not track.reset(1)  # told again
    track.process(predictions(1))
    assert "reset" not in [e.kind for e in track.take_events()]


def test_result_files_of_the_next_run_are_new(tmp_path: Path) -> None:
    assert next_path(tmp_path / "scan-42.nxs").name == "scan-42.2.nxs"
    (tmp_path / "scan-42.2.nxs").touch()
    assert next_path(tmp_path / "scan-42.nxs").name == "scan-42.3.nxs"
    assert next_path(tmp_path / "scan-42.2.nxs").name == "scan-42.3.nxs"
    assert next_path(tmp_path / "lines").name == "lines.2"


def test_two_result_files_of_the_next_run_are_two(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("r.nxs", "r.2.nxs", "x" * 300)]
    sinks = tuple(SinkConfig(type="nexus", path=str(path)) for path in paths)
    for path in paths[:2]:
        path.touch()
    config = Config(source=SourceConfig(uri="a:b"), sink=sinks)
    names = [Path(sink.options["path"]).name for sink in following(config, "").sink]
    assert names == ["r.3.nxs", "r.4.nxs", "x" * 300 + ".2"]


def test_only_what_the_configuration_has_is_changed() -> None:
    config = Config(source=SourceConfig(uri="a:b"))
    for files, text in (
        ({}, "load: name at least one of model, poni, mask, dark, flat"),
        ({"model": "/m"}, "load: model: the run has no [classifier]"),
        ({"poni": "/p"}, "load: poni: the run has no [calibration]"),
    ):
        with pytest.raises(PipelineError) as refused:
            changed(config, files)
        assert str(refused.value) == text
    calibrated = config.model_copy(
        update={"calibration": CalibrationConfig(poni="/old", mask="/mask")}
    )
    assert changed(calibrated, {"poni": "/new"}).calibration == CalibrationConfig(
        poni="/new", mask="/mask"
    )


class Asking:
    """Control of a run with frames, asked through its socket; its trials hang at a FIFO."""

    def __init__(self, transport: Transport, folder: Path) -> None:
        self._transport = transport
        os.mkfifo(folder / "fifo")
        config = Config(
            source=SourceConfig(uri="a:b"),
            calibration=CalibrationConfig(poni=str(folder / "old")),
            reduce=ReduceConfig(n_bins=10),
        )
        items = {"frame": ItemSpec.of((2, 2), "u2")}
        self.ring, self.now = new_memory(), 0
        run = RunStart(run_id="r", source="a:b", items=items)
        Ring.create(self.ring, items, slots=2, note=note_of(run))
        self._router = transport.link("router", f"ipc://{folder}/control", bind=True)
        self._dealer = transport.link("dealer", self._router.address, bind=False)
        view = View(run_id="r", control=self._router.address, source="a:b")
        self.control = Control(
            self._router,
            config,
            view,
            self.ring,
            clock=lambda: self.now,
            stop=lambda reason: setattr(view, "stopping", reason),
            reset=lambda *_: None,
        )

    def ask(self, **data: Any) -> None:
        self._dealer.send(encode(ControlBody(what="load", data=data)))
        self._transport.poll([self._router], 10_000)
        self.control.hear()

    def loaded(self, **data: Any) -> Config:
        self.ask(**data, at_end=True)
        self.until_over()
        assert self.answer("loaded")
        following = self.control.next()
        assert following is not None
        return following

    def until_over(self) -> None:
        while self._transport.poll([self._dealer], 5) == []:
            self.control.check()

    def answer(self, what: str = "error") -> str:
        self._transport.poll([self._dealer], 10_000)
        received = self._dealer.receive()
        assert received is not None
        body = received[1].body
        assert isinstance(body, ControlBody)
        assert body.what == what, body
        return str(body.data)


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with Transport(linger_s=0) as transport:
        asking = Asking(transport, tmp_path)
        yield asking
        asking.control.close()
        os.close(asking.ring)


def test_a_trial_that_hangs_is_given_up(asking: Asking, tmp_path: Path) -> None:
    asking.ask(poni=str(tmp_path / "fifo"))
    asking.now = PATIENCE_NS
    asking.control.check()
    asking.ask(poni=str(tmp_path / "fifo"))
    assert "load: another configuration is being tried; ask again" in asking.answer()
    asking.now += 1
    asking.control.check()
    assert "load: it could not be tried within 50 s" in asking.answer()
    asking.ask(poni=str(tmp_path / "nowhere"))
    asking.until_over()
    assert "nowhere" in asking.answer()


def test_who_loads_while_the_run_ends_gets_an_answer(asking: Asking, tmp_path: Path) -> None:
    asking.ask(poni=str(tmp_path / "fifo"))
    asking.control.refuse("load: the run ended before it was tried")
    assert "load: the run ended before it was tried" in asking.answer()
    asking.control.close()


def test_what_is_loaded_adds_to_what_was(asking: Asking, tmp_path: Path) -> None:
    poni, mask = tmp_path / "a.poni", tmp_path / "mask.npy"
    poni.write_text(PONI)
    np.save(mask, np.zeros((2, 2), np.uint8))
    assert asking.control.next() is None
    asking.loaded(poni=str(poni))
    calibration = asking.loaded(mask=str(mask)).calibration
    assert calibration == CalibrationConfig(poni=str(poni), mask=str(mask))


def test_a_trial_that_cannot_start_is_an_answer(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    asking.ask(poni=str(tmp_path / "nowhere"))
    assert "no-python" in asking.answer()


def test_a_trial_ends_with_who_began_it(tmp_path: Path) -> None:
    """Its standard input is closed when the supervisor dies."""
    os.mkfifo(tmp_path / "fifo")
    items = {"frame": ItemSpec.of((2, 2), "u2")}
    ring = new_memory()
    Ring.create(ring, items, slots=2, note=note_of(RunStart(run_id="r", source="s", items=items)))
    config = Config(
        source=SourceConfig(uri="a:b"),
        calibration=CalibrationConfig(poni=str(tmp_path / "fifo")),
        reduce=ReduceConfig(n_bins=10),
    )
    done = subprocess.run(
        [sys.executable, "-m", "phasewatch.pipeline.processes.trial", str(ring)],
        input=config.model_dump_json().encode() + b"\n",
        pass_fds=(ring,),
        check=False,
        timeout=60,
    )
    os.close(ring)
    assert done.returncode == 3


def test_what_a_trial_says_is_one_line_of_bounded_length() -> None:
    assert one_line(ValueError("a\n b" + "c" * 10**6)) == "a b" + "c" * 3997
    assert one_line(OSError()) == "OSError"


class User:
    """Asks a run, as a generator that waits for each answer."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._link = transport, None

    def ask(self, address: str, what: str, **data: Any) -> Generator[None, None, ControlBody]:
        if self._link is None:
            self._link: Link | None = self._transport.link("dealer", address, bind=False)
        link = self._link
        assert link is not None
        link.send(encode(ControlBody(what=what, data=data)))
        while not self._transport.poll([link], 0):
            yield
        received = link.receive()
        assert received is not None
        body = received[1].body
        assert isinstance(body, ControlBody)
        return body


def events(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["event"] for line in lines if "event" in line]


@pytest.fixture
def user() -> Iterator[User]:
    with Transport(linger_s=0) as transport:
        yield User(transport)


def test_a_run_whose_tracker_begins_anew(
    ramps: Any, model: Path, play: Any, tmp_path: Path, user: User
) -> None:
    def act(run: Any) -> Generator[None, None, None]:
        yield from run.progress(50)
        reply = yield from user.ask(run.view.control, "reset", run_id=run.view.run_id)
        assert reply.what == "resetting"
        yield from run.until(lambda: [e.kind for e in run.view.events].count("reset") == 1)
        yield from run.kill("tracker")  # it dies before it could: the next one is told
        reply = yield from user.ask(run.view.control, "reset")
        yield from run.until(lambda: [e.kind for e in run.view.events].count("reset") == 2)

    outcome = ramps.run(ramps.configure(model), play(act))
    assert outcome.next is None
    assert [e["kind"] for e in events(tmp_path / "lines.json")].count("reset") == 2


def test_a_model_of_patterns_that_were_cleaned_otherwise_is_refused_before_a_run(
    ramps: Any, model: Path
) -> None:
    config = ramps.configure(model)
    raw = config.reduce.model_copy(update={"normalise": "none"})
    started: list[Any] = []
    with pytest.raises(
        PipelineError, match=r"\[classifier\] model .*: normalise: the patterns have"
    ):
        supervise(config.model_copy(update={"reduce": raw}), on_start=started.append)
    assert not started


def test_a_run_goes_on_with_another_model(
    ramps: Any, model: Path, play: Any, tmp_path: Path, user: User
) -> None:
    """Hostile words are refused, the run goes on; then the next one begins with what was loaded."""
    from phasewatch.models import load, save

    network, card, novelty = load(model)
    next(network.parameters()).data += 0.01
    save(tmp_path / "other", network, card, novelty)
    (tmp_path / "sink").mkdir()
    os.mkfifo(gate := tmp_path / "gate")  # the run waits, for what is tried takes a core as well
    sink = {"type": "lines", "path": "sink/lines.json", "gate": str(gate), "gate_at": 300}
    said: dict[str, Any] = {}

    def act(run: Any) -> Generator[None, None, None]:
        yield from run.progress(1)
        ask = run.view.control
        for what, data, text in (
            ("load", {"model": 3}, "load: model: Input should be a valid string"),
            ("load", {"model": "m" * 5000}, "load: model: String should have at most 4096"),
            ("load", {"model": "here"}, "not an absolute path on the host of the run"),
            ("load", {"pickle": "/x"}, "load: pickle: Extra inputs are not permitted"),
            ("load", {}, "name at least one of model"),
            ("load", {"poni": "/x"}, "the run has no [calibration]"),
            ("load", {"model": str(tmp_path / "nowhere")}, "nowhere"),
            ("reset", {"run_id": "another"}, "not the one that reset is meant for"),
            ("stop", {"run_id": ["x"]}, "stop: run_id: Input should be a valid string"),
        ):
            reply = yield from user.ask(ask, what, **data)
            assert reply.what == "error", (what, data, reply)
            assert text in reply.data["text"], reply.data["text"]
        assert not run.view.stopping
        said["run"] = run.view.run_id
        reply = yield from user.ask(ask, "load", model=str(tmp_path / "other"))
        assert reply.what == "loaded", reply
        said["digests"] = reply.data["digests"]
        yield from run.open_gate(gate)

    acting = play(act, stop=False)
    config = ramps.configure(model, sink=[sink])
    outcome = supervise(config, on_update=acting, on_start=acting.start)
    assert acting.over
    assert outcome.error is None
    assert outcome.stop is not None
    assert outcome.stop.reason == "another configuration was loaded"
    assert outcome.stop.loss.classified == outcome.stop.loss.received >= 300
    following = outcome.next
    assert following is not None
    assert following.runtime.control == acting.view.control

    def act_again(run: Any) -> Generator[None, None, None]:
        yield from run.progress(1)
        assert run.view.run_id != said["run"]
        reply = yield from user.ask(run.view.control, "load", model=str(model), at_end=True)
        assert reply.what == "loaded", reply
        assert not run.view.stopping
        reply = yield from user.ask(run.view.control, "stop")
        assert reply.what == "stopping"
        yield from run.open_gate(gate)

    acting = play(act_again, stop=False)
    outcome = supervise(following, on_update=acting, on_start=acting.start)
    assert (outcome.error, outcome.next) == (None, None)  # who stops it wants none to follow
    first, second = (
        json.loads((tmp_path / "sink" / name).read_text().splitlines()[0])["start"]["digests"]
        for name in ("lines.json", "lines.2.json")
    )
    assert second["model"] == said["digests"]["model"] != first["model"]
    assert second["configuration"] != first["configuration"]
