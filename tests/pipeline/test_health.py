"""From health reports to a status: rates by a clock that is passed in, restarts, odd reports."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.documents import Event, Loss, Zone
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.health import (
    MAX_REPORTS,
    MAX_SHOWN,
    Book,
    History,
    Report,
    extend,
    parse_status,
    rate_hz,
    run_status,
)

S = 1_000_000_000


def history(*reports: tuple[float, int]) -> History:
    kept: History = ()
    for at, done in reports:
        kept = extend(kept, Report(int(at * S), {"done": done}))
    return kept


def test_a_rate_is_counted_over_the_last_seconds() -> None:
    assert rate_hz(history((0, 0), (1, 100), (2, 300)), 2 * S) == 150.0
    assert rate_hz(history((0, 0), (10, 100), (11, 300)), 11 * S) == 200.0
    assert rate_hz(history((3, 7), (5, 7)), 5 * S) == 0.0


def test_a_rate_that_is_not_known_is_not_0() -> None:
    assert rate_hz((), 0) is None
    assert rate_hz(history((1, 5)), S) is None
    assert rate_hz(history((1, 5), (1, 9)), S) is None
    assert rate_hz(history((1, 5), (2, 9)), 8 * S) is None  # silent for longer than the window


def test_a_process_that_was_started_anew_has_a_rate_of_its_own() -> None:
    assert rate_hz(history((0, 500), (1, 600), (2, 10), (3, 40)), 3 * S) == 30.0


@given(st.lists(st.tuples(st.integers(0, S), st.integers(0, 1000)), max_size=200))
def test_memory_is_bounded_and_rates_are_never_negative(steps: list[tuple[int, int]]) -> None:
    kept: History = ()
    now = 0
    for step_ns, done in steps:
        now += step_ns
        kept = extend(kept, Report(now, {"done": done}))
        assert len(kept) <= MAX_REPORTS
        assert (rate_hz(kept, now) or 0.0) >= 0.0


def told() -> Book:
    book = Book(began_ns=0)
    zone = {"boundary": 0, "after": 9, "before": 13, "n": 3, "passed": True}
    for t in range(3):
        book.report(
            "receiver", {"received": 40 * t, "missed": 2, "queued": 4, "in_flight": 6}, t * S
        )
        book.report(
            "reducer-1", {"done": 30 * t, "age_ms": 5.0, "batch": 2.5, "rejected": 3}, t * S
        )
        book.report(
            "tracker",
            {
                "classified": 20 * t,
                "failed": 1,
                "dropped": {"ring full": 4},
                "phase": 1,
                "posterior": 0.9,
                "confidence": 0.8,
                "zones": (zone,),
            },
            t * S,
        )
    return book


def test_a_status_says_all_that_was_reported() -> None:
    book = told()
    book.report("sink", {"p50_ms": 2.0, "p99_ms": 9.0}, S)
    book.restarted("reducer-1")
    book.failed("reducer-1", "ended (exit code -9)\nkilled\x1b[2J")
    event = Event(kind="onset", seq=10, id=110, t_acq=None, phase=1, posterior=0.9)
    status = run_status(
        book,
        4 * S,
        run_id="r",
        source="series:x.npz",
        expected=100,
        classes=("before", "after"),
        stopping="stopped by request",
        events=[event] * (MAX_SHOWN + 1),
        n_events=50,
    )
    assert status.frames == Loss(
        expected=100, received=80, missed=2, classified=40, dropped={"ring full": 4}, failed=1
    )
    assert status.latency_ms == {"p50": 2.0, "p99": 9.0}
    assert status.elapsed_s == 4.0
    assert status.stopping == "stopped by request"
    assert (status.n_events, status.events) == (50, (event,) * MAX_SHOWN)
    assert status.track is not None
    assert (status.track.phase, status.track.posterior, status.track.confidence) == (
        "after",
        0.9,
        0.8,
    )
    assert status.track.zones == (Zone(boundary=0, after=9, before=13, n=3, passed=True),)
    rates = {role: process.rate_hz for role, process in status.processes.items()}
    assert rates == {"receiver": 40.0, "reducer-1": 30.0, "sink": None, "tracker": 20.0}
    reducer = status.processes["reducer-1"]
    assert (reducer.heard_s, reducer.age_ms, reducer.batch) == (2.0, 2005.0, 2.5)
    assert (reducer.rejected, reducer.restarts) == (3, 1)
    assert reducer.error == "ended (exit code -9) killed?[2J"
    assert (status.processes["receiver"].queued, status.processes["receiver"].in_flight) == (4, 6)
    assert parse_status(json.loads(status.model_dump_json()), where="x") == status


def test_the_last_error_stays_when_later_reports_have_none() -> None:
    book = Book(0)
    book.report("sink", {"written": 1, "error": "disk full"}, S)
    book.report("sink", {"written": 2, "error": ""}, 2 * S)
    assert book.process("sink", 2 * S).error == "disk full"


def test_before_anything_is_known() -> None:
    status = run_status(Book(0), S, run_id="r")
    assert (status.processes, status.track, status.latency_ms) == ({}, None, {})
    assert status.frames == Loss()


def test_an_unknown_phase_and_what_is_no_number() -> None:
    book = Book(0)
    book.report("tracker", {"phase": -1, "classified": None, "age_ms": "old"}, S)
    status = run_status(book, S, run_id="r", classes=("a", "b"))
    assert status.track is not None
    assert status.track.phase == "unknown"
    assert status.processes["tracker"].age_ms is None


@pytest.mark.parametrize(
    "data", [{}, {"run_id": 3}, {**run_status(Book(0), 0, run_id="r").model_dump(), "x": 1}]
)
def test_what_is_not_a_status_is_one_line(data: dict[str, object]) -> None:
    with pytest.raises(
        PipelineError, match=r"^tcp://x: not a status of this version: \w+: [^\n]+$"
    ):
        parse_status(data, where="tcp://x")
