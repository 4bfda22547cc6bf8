"""The log: one form for all lines, whose they are in each, and the last error kept."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog

from phasewatch.pipeline import logs
from phasewatch.pipeline.cli import main
from phasewatch.pipeline.errors import PipelineError


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(logs.FORM, "console")
    monkeypatch.setattr(logs, "_last", {"error": ""})
    monkeypatch.setattr(logs, "_bound", {})
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logs.Forward)]:
        root.removeHandler(handler)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_each_line_says_when_and_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("a module")
    logs.configure("reducer-0", form="json")
    log.info("before the run", n=3)
    logs.bind(run="r1")
    log.debug("not shown")
    log.warning("message refused", link="ipc://x", error=ValueError("bad"))
    first, second = lines(capsys)
    assert datetime.fromisoformat(str(first.pop("timestamp"))).tzinfo == UTC
    assert first == {
        "event": "before the run",
        "level": "info",
        "role": "reducer-0",
        "pid": os.getpid(),
        "n": 3,
    }
    assert (second["run"], second["level"], second["link"]) == ("r1", "warning", "ipc://x")


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sink", form="json")
    try:
        raise OSError("disk full")
    except OSError:
        structlog.get_logger().exception("cannot write")
    (line,) = lines(capsys)
    assert "disk full" in json.dumps(line["exception"])
    assert logs.last_error() == "cannot write: disk full"


def test_what_libraries_log_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sink", form="json")
    logs.configure("sink", form="json")
    logging.getLogger("zmq.auth").error("%d bad", 2)
    logging.getLogger("zmq.auth").info("not shown")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["role"]) == ("2 bad", "zmq.auth", "sink")


def test_the_last_error_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sink", form="json")
    log = structlog.get_logger()
    log.info("fine", error="no")
    assert logs.last_error() == ""
    log.warning("message refused", error="not msgpack")
    log.info("fine again")
    assert logs.last_error() == "message refused: not msgpack"
    assert len(lines(capsys)) == 3


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("sink", debug=True)
    structlog.get_logger().debug("written", path="result.nxs")
    line = capsys.readouterr().err
    assert "[debug    ] written" in line
    assert "path=result.nxs" in line
    assert f"role=sink pid={os.getpid()}" in line


def test_children_log_in_the_same_form() -> None:
    logs.configure("supervisor", form="json")
    code = (
        "import structlog; from phasewatch.pipeline import logs; logs.configure('tracker');"
        "structlog.get_logger().info('here')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(said.stderr)["role"] == "tracker"


def test_another_form_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(logs.FORM, "xml")
    with pytest.raises(PipelineError, match=r"^PHASEWATCH_LOG xml: one of console, json$"):
        logs.chosen()
    assert main(["plugins"]) == 1
    assert capsys.readouterr().err == "phasewatch: PHASEWATCH_LOG xml: one of console, json\n"
    assert main(["--log-format", "xml", "plugins"]) != 0
    assert "'xml'" in capsys.readouterr().err
    assert main(["--log-format", "json", "plugins"]) == 0
    assert os.environ[logs.FORM] == "json"
