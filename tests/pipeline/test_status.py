"""``phasewatch status``: the table, once, live and as JSON, from a supervisor that is played."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from phasewatch.pipeline import commands
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.cli import main
from phasewatch.pipeline.documents import Event
from phasewatch.pipeline.health import Book, Status, run_status
from phasewatch.pipeline.live_status import follow, render, show
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.transport.links import Transport

S = 1_000_000_000


def status(n: int = 40) -> Status:
    book = Book(began_ns=0)
    zone = {"boundary": 0, "after": 9, "before": 13, "n": 3, "passed": True}
    for t in range(3):
        book.report("sink", {"written": 900 * t, "p50_ms": 9.2}, min(t, 1) * S)
        book.report(
            "reducer-0", {"done": 1000 * t, "age_ms": 0.42, "p50_ms": 1.234, "batch": 8}, t * S
        )
        book.report("receiver", {"received": n * t, "queued": 3, "in_flight": 12}, t * S)
        book.report(
            "tracker",
            {"classified": n * t, "phase": 1, "posterior": 0.987, "zones": (zone,)},
            t * S,
        )
    book.restarted("reducer-0")
    book.failed("reducer-0", "ended (exit code -9)")
    event = Event(kind="onset", seq=10, id=110, t_acq=None, phase=1, posterior=0.93)
    return run_status(
        book,
        4 * S,
        run_id="r1",
        source="series:s.npz",
        expected=100,
        classes=("before", "after"),
        events=[event],
        n_events=1,
    )


def drawn(shown: Status, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(shown))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table() -> None:
    lines = drawn(status())
    assert lines[:4] == [
        "run r1  running  4.0 s",
        "source series:s.npz",
        "received 80/100  missed 0  done 80  dropped 0  failed 0  p50 9.2 ms",
        "phase after 0.99  confidence -  zones 10-12",
    ]
    rows = [line.split() for line in lines[4:]]
    assert rows[0][:6] == ["process", "items", "rate/s", "queue", "held", "age"]
    assert [row[0] for row in rows[2:6]] == ["receiver", "reducer-0", "tracker", "sink"]
    assert rows[2] == ["receiver", "80", "40.0", "3", "12"]
    assert rows[3] == ["reducer-0", "2000", "1000", "2.0", "s", "1.23", "ms", "8", "1"]
    assert lines[10:] == [
        "reducer-0: last error: ended (exit code -9)",
        "sink: silent for 3.0 s",
        "onset at 10 (id 110), posterior 0.930",
    ]


def test_before_the_source_has_begun() -> None:
    assert drawn(run_status(Book(0), 75 * S, run_id="r"))[0] == "run r  starting  75.0 s"
    assert drawn(run_status(Book(0), 4000 * S, run_id="r"))[0] == "run r  starting  1:06:40"


def test_live_it_goes_on_until_nobody_answers() -> None:
    answers: list[Status | None] = [status(50), status(60), None]
    paused: list[int] = []
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    show(follow(lambda: paused.append(1), lambda: answers.pop(0)), console)
    assert isinstance(console.file, io.StringIO)
    assert "received 100/100" in console.file.getvalue()
    assert "received 120/100" in console.file.getvalue()
    assert len(paused) == 3


@contextmanager
def supervisor(answer: Callable[[], ControlBody | None]) -> Iterator[str]:
    """Answer at an address, in a thread, until `answer` gives None."""
    with Transport(linger_s=1) as transport:
        link = transport.link("router", "tcp://127.0.0.1:0", bind=True)
        over = transport.wakeup()

        def serve() -> None:
            while transport.poll([link, over], 10_000) == [link]:
                received = link.receive()
                assert received is not None
                if (body := answer()) is not None:
                    link.offer(encode(body), to=received[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield link.address
        finally:
            over.set()
            thread.join()


def body(shown: Status) -> ControlBody:
    return ControlBody(what="status", data=shown.model_dump(mode="json"))


def test_once_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    with supervisor(lambda: body(status())) as address:
        assert main(["status", address]) == 0  # not a terminal
        assert "receiver" in capsys.readouterr().out
        assert main(["status", address, "--once"]) == 0
        assert "received 80/100" in capsys.readouterr().out
        assert main(["status", address, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == status().model_dump(mode="json")


class Terminal(io.StringIO):
    """What was written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_live_it_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [body(status(50)), body(status(60)), None]
    monkeypatch.setattr(commands, "EVERY_S", 0.0)
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with supervisor(lambda: answers.pop(0)) as address:
        assert main(["status", address, "--wait", "1"]) == 0
    assert "received 120/100" in terminal.getvalue()
    assert "the run is over" in terminal.getvalue()


def test_ctrl_c_ends_it_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(self: object, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.Caller, "pause", pressed)
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with supervisor(lambda: body(status())) as address:
        assert main(["status", address]) == 0
    assert "received 80/100" in terminal.getvalue()


def test_an_answer_of_another_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with supervisor(lambda: ControlBody(what="status", data={"run_id": "r"})) as address:
        assert main(["status", address]) == 1
    assert f"{address}: not a status of this version: source: " in capsys.readouterr().err
