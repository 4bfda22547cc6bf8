"""Real processes killed and stopped in the middle of a run: nothing lost, the same bits."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasewatch.models import save
from phasewatch.models.labels import Labels
from phasewatch.models.series import Series
from phasewatch.models.training import Recipe, train
from phasewatch.pipeline import restarts
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.build import classify_stage, reduce_stages
from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.plugin import open_sink, open_source
from phasewatch.pipeline.processes.supervisor import Outcome, View, supervise
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.stages.track import Track
from phasewatch.pipeline.transport.links import Transport

pytestmark = [pytest.mark.usefixtures("thirdparty"), pytest.mark.timeout(300)]
BASELINE = {"method": "asls", "lam": 1e3}


def configure(
    folder: Path, model: Path | None = None, *, runtime: dict[str, Any] | None = None, **source: Any
) -> Config:
    tables: dict[str, Any] = {
        "source": {"uri": "ramp:1", "endless": True, **source},
        "reduce": {"baseline": BASELINE},
        "runtime": {
            "reducers": 2,
            "restarts": 1000,
            "ring": 64,
            "resend_s": 0.5,
            **(runtime or {}),
        },
        "sink": [{"type": "lines", "path": "lines.json"}],
    }
    if model is not None:
        tables["classifier"] = {"model": str(model), "max_wait_ms": 0}
    return parse_config(tables, name="test", folder=folder)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A classifier of the ramp's two halves."""
    source = open_source("ramp:64")
    chain = reduce_stages(configure(tmp_path), run := source.start())
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
        baseline={"p": 0.002, "n_iter": 10, **BASELINE},
        normalise="minmax",
    )
    labels = Labels(np.array([2, 10, 50, 60]), np.array([0, 0, 1, 1]), ("before", "after"))
    save(tmp_path / "model", *train(series, labels, model="fcnn", recipe=Recipe(epochs=3)))
    return tmp_path / "model"


class Saboteur:
    """Acts whenever the run has got on by some items; stops it when there is nothing left to do."""

    def __init__(self, acts: list[Callable[[dict[str, int]], None]], *, every: int = 20) -> None:
        self.acts, self._every = list(acts), every
        self.pids: dict[str, int] = {}
        self._next, self._stopping = every, False

    def start(self, pids: dict[str, int]) -> None:
        self.pids = pids

    def __call__(self, view: View) -> None:
        done = view.health.get("sink", {}).get("written", 0)
        if done < self._next or self._stopping:
            return
        self._next = done + self._every
        if self.acts:
            try:
                self.acts[0](self.pids)
                del self.acts[0]
            except ProcessLookupError:  # not back yet since it was killed last
                self._next = done + 1
            return
        self._stopping = True
        with Transport(linger_s=1) as transport:
            transport.link("dealer", view.control, bind=False).send(
                encode(ControlBody(what="stop"))
            )


def run(config: Config, saboteur: Saboteur) -> Outcome:
    outcome = supervise(config, on_update=saboteur, on_start=saboteur.start)
    assert outcome.error is None
    assert outcome.stop is not None
    assert not saboteur.acts
    return outcome


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lines.json").read_text().splitlines()]


def items(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder) if "seq" in line]


def undisturbed(config: Config, folder: Path, n: int) -> list[dict[str, Any]]:
    """Return what `n` items of the ramp give in one process."""
    folder.mkdir()
    source = open_source(f"ramp:{n}")
    stages = [*reduce_stages(config, source.start())]
    if config.classifier is not None:
        stages += [classify_stage(config), Track(**config.track.model_dump())]
    replay(source, stages, open_sink("lines", path=str(folder / "lines.json")))
    return lines(folder)


def test_each_of_three_processes_killed_twenty_times(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "FIRST_NS", 0)
    victims = ["reducer-0", "classifier", "tracker"] * 20
    np.random.default_rng(4).shuffle(victims)
    config = configure(tmp_path, model)
    killed: Counter[str] = Counter()

    def act(role: str) -> Callable[[dict[str, int]], None]:
        def strike(pids: dict[str, int]) -> None:
            os.kill(pids[role], signal.SIGKILL)
            killed[role] += 1

        return strike

    outcome = run(config, Saboteur([act(role) for role in victims]))
    assert killed == Counter({"reducer-0": 20, "classifier": 20, "tracker": 20})
    loss = outcome.stop.loss
    assert loss.received == loss.classified > 60 * 20
    assert (loss.failed, loss.dropped, loss.missed) == (0, {}, 0)
    apart = [line for line in lines(tmp_path) if "seq" in line or "event" in line]
    alone = undisturbed(config, tmp_path / "alone", loss.received)
    assert [d for d in apart if "seq" in d] == [d for d in alone if "seq" in d]
    assert [d for d in apart if "event" in d] == [d for d in alone if "event" in d]
    assert outcome.stop.zones == tuple(
        type(outcome.stop.zones[0])(**z) for z in alone[-1]["stop"]["zones"]
    )
    assert outcome.stop.confidence == alone[-1]["stop"]["confidence"]
