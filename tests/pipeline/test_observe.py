"""Observers are told once a second; those that fail are left out, and the run goes on."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from phasewatch.pipeline.config import Config, parse_config
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import Book, Status, run_status
from phasewatch.pipeline.observe import EVERY_NS, Observers, open_observers

STATUS = run_status(Book(0), 0, run_id="r")


class Played:
    """An observer that remembers, and fails when it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails, self.seen, self.closed = fails, 0, 0

    def update(self, status: Status) -> None:
        assert status is STATUS
        self.seen += 1
        if self.fails:
            raise OSError("gone")

    def close(self) -> None:
        self.closed += 1
        if self.fails:
            raise OSError("still gone")


def test_one_that_fails_is_told_and_left_out() -> None:
    good, bad = Played(), Played(fails=True)
    with Observers() as observers, capture_logs() as logs:
        observers.add("bad", bad)
        observers.add("good", good)
        observers.update(STATUS)
        observers.update(STATUS)
    assert (good.seen, good.closed, bad.seen, bad.closed) == (2, 1, 1, 1)
    assert [(line["log_level"], line["observer"]) for line in logs] == [("error", "bad")] * 2


def test_once_a_second_and_none_made_up() -> None:
    observers = Observers()
    assert not observers.due(5 * EVERY_NS)
    observers.add("good", Played())
    asked = [5.25, 5.9, 6.0, 6.3, 6.9, 7.2, 11.4, 11.5, 12.0]
    said = [t for t in asked if observers.due(int(t * EVERY_NS))]
    assert said == [5.25, 6.0, 7.2, 11.4, 12.0]


def configured(folder: Path, **tables: object) -> Config:
    return parse_config({"source": {"uri": "x:y"}, **tables}, name="run.toml", folder=folder)


def test_tables_are_those_of_installed_observers(tmp_path: Path) -> None:
    keys = {"heartbeat": {"address": "ipc://h", "keys": "keys"}, "metrics": {"port": 0}}
    config = configured(tmp_path, **keys)
    assert config.observers["heartbeat"] == {"address": "ipc://h", "keys": str(tmp_path / "keys")}
    assert config.observers["metrics"] == {"port": 0}
    assert Config.model_validate(config.model_dump(mode="json")) == config
    for bad in ({"metric": {"port": 0}}, {"port": 9464}):
        with pytest.raises(PipelineError, match=rf"^run\.toml: \[{next(iter(bad))}\]: no such key"):
            configured(tmp_path, **bad)
    with pytest.raises(PipelineError, match=r"^run\.toml: \[metrics\]: Input should be a valid"):
        configured(tmp_path, metrics=9464)


def test_what_was_opened_is_closed_when_the_next_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"\[metrics\] unknown key 'prot'"):
        open_observers(
            configured(tmp_path, heartbeat={"address": f"ipc://{tmp_path}/h"}, metrics={"prot": 0})
        )
    with pytest.raises(PipelineError, match="no such folder; `phasewatch keys"):
        open_observers(configured(tmp_path, heartbeat={"address": "tcp://*:0", "keys": "none"}))


def test_both_are_opened_by_their_tables(tmp_path: Path) -> None:
    tables = {"heartbeat": {"address": f"ipc://{tmp_path}/h"}, "metrics": {"port": 0}}
    with capture_logs() as logs, open_observers(configured(tmp_path, **tables)) as observers:
        observers.update(STATUS)
        assert observers.due(EVERY_NS)
    assert [line["event"] for line in logs] == ["heartbeat", "metrics"]
