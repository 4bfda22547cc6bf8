"""A model that looks back at earlier items: any process may die, and the bits stay the same."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasewatch.models import fresh
from phasewatch.pipeline import restarts
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_source
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.pipeline.processes.trial import try_out

pytestmark = pytest.mark.timeout(300)
CONTEXT = 30  # of a transformer


@pytest.fixture
def model(ramps: Any, tmp_path: Path) -> Path:
    source = open_source("ramp:8")
    run = source.start()
    patterns = np.concatenate([batch.arrays["intensity"] for batch in source])
    folder = tmp_path / "model"
    card = fresh.save(
        folder,
        "transformer",
        patterns=patterns,
        axis=run.constants["axis"],
        unit="2th_deg",
        baseline={"p": 0.002, "n_iter": 10, **ramps.baseline},
        normalise="minmax",
        classes=("before", "after"),
        seed=3,
    )
    assert card.context == CONTEXT
    return folder


@pytest.fixture(autouse=True)
def again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_NS", 0)


def test_whoever_dies_the_windows_are_the_same(ramps: Any, play: Any, model: Path) -> None:
    config = ramps.configure(model, runtime={"ring": 96})

    def act(run: Any) -> Any:
        for role in ["classifier", "reducer-0", "classifier", "tracker", "classifier", "receiver"]:
            yield from run.progress(30)
            yield from run.signal(role, signal.SIGKILL)
        yield from run.progress(120)
        for role in ["classifier", "reducer-0", "reducer-1"]:  # with what was sent for it again
            yield from run.signal(role, signal.SIGKILL)
        yield from run.progress(60)

    outcome = ramps.run(config, play(act))
    assert outcome.stop.loss.received > 300
    ramps.check_whole(config, outcome)


def test_what_the_tracker_had_and_the_sinks_had_not_is_classified_again(
    ramps: Any, play: Any, model: Path
) -> None:
    config = ramps.configure(model, runtime={"ring": 256})

    def act(run: Any) -> Any:
        yield from run.progress(30)
        yield from run.signal("tracker", signal.SIGSTOP)
        sent = run.number("classifier", "done")
        yield from run.until(lambda: run.number("classifier", "done") > sent + 60)
        yield from run.signal("tracker", signal.SIGKILL)
        yield from run.progress(300)

    outcome = ramps.run(config, play(act))
    ramps.check_whole(config, outcome)


def test_what_cannot_be_used_shortens_the_windows_behind_it(
    ramps: Any, play: Any, model: Path
) -> None:
    bad = '{"20": "nan", "21": "unreadable", "90": "shape", "140": "nan"}'
    config = ramps.configure(model, n=200, bad=bad, runtime={"ring": 64})

    def act(run: Any) -> Any:
        yield from run.until(lambda: run.number("tracker", "classified") > 60)
        yield from run.signal("classifier", signal.SIGKILL)
        yield from run.until(lambda: run.number("tracker", "classified") > 120)
        yield from run.signal("classifier", signal.SIGKILL)

    outcome = ramps.run(config, play(act, stop=False))
    assert (outcome.stop.loss.classified, outcome.stop.loss.failed) == (196, 4)
    alone = [line for line in ramps.undisturbed(config, 200, bad=bad) if "seq" in line]
    assert ramps.items() == alone


@pytest.mark.parametrize(
    ("table", "values", "error"),
    [
        ("classifier", {"own_process": False}, "looks at 30 items before: .*own_process = true"),
        ("reduce", {"device": "torch-cpu"}, 'looks at 30 items before: .*device = "cpu"'),
        ("runtime", {"ring": 30}, r"\[runtime\] ring: 30 slots, but .* at least 31"),
    ],
)
def test_where_the_order_cannot_be_kept(
    ramps: Any, model: Path, table: str, values: dict[str, Any], error: str
) -> None:
    config = ramps.configure(model, n=5)
    changed = getattr(config, table).model_copy(update=values)
    config = config.model_copy(update={table: changed})
    run = RunStart(run_id="r", source="a:b", items={"intensity": ItemSpec.of((8,), "f4")})
    with pytest.raises(PipelineError, match=error):  # so a load is refused for it
        try_out(config, run)
    outcome = supervise(config)
    assert outcome.error is not None
    assert re.search(error, outcome.error), outcome.error
