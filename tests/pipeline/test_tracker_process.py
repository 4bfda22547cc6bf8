"""The tracker process, driven by hand: whose messages count, and what an abort leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phasewatch.pipeline.batch import Batch, Dropped, Failure
from phasewatch.pipeline.bodies import CreditBody, ReportBody, ResumeBody, StartBody, StopBody
from phasewatch.pipeline.config import parse_config
from phasewatch.pipeline.documents import ItemSpec, Loss, RunStart, RunStop
from phasewatch.pipeline.messages import (
    Message,
    decode,
    encode,
    encode_batch,
    encode_dropped,
    encode_failed,
    encode_start,
)
from phasewatch.pipeline.processes.desk import Setup
from phasewatch.pipeline.processes.tracker import TrackerProcess
from phasewatch.pipeline.transport.links import Transport


class Desk:
    """Stands for the supervisor and the sinks: keeps what it is told."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reports: dict[str, dict[str, Any]] = {}

    def clock(self) -> int:
        return 1

    def send(self, link: object, parts: list[Any], *, to_role: str = "") -> None:
        self.sent.append(decode([bytes(part) for part in parts]))

    def report(self, what: str, **data: Any) -> None:
        self.reports[what] = data

    def ready(self, **data: Any) -> None:
        self.report("ready", **data)

    def stop(self) -> RunStop:
        return RunStop.model_validate(self.reports["tracked"]["stop"], strict=False)


@pytest.fixture
def transport() -> Iterator[Transport]:
    with Transport(linger_s=0) as transport:
        yield transport


def begin(
    transport: Transport, folder: Path, *, again: bool, **tables: Any
) -> tuple[TrackerProcess, Desk]:
    config = parse_config({"source": {"uri": "a:b"}, **tables}, name="t", folder=folder)
    setup, desk = Setup("ours", config, {"results": f"ipc://{folder}/results"}, again=again), Desk()
    return TrackerProcess(transport, desk, setup), desk  # type: ignore[arg-type]


@pytest.fixture
def process(tmp_path: Path, transport: Transport) -> tuple[TrackerProcess, Desk]:
    return begin(transport, tmp_path, again=False)


def run(run_id: str) -> RunStart:
    items = {"intensity": ItemSpec.of((3,), "f4")}
    return RunStart(run_id=run_id, source="a:b", items=items, expected=9)


def batch(*seqs: int) -> Batch:
    seq = np.array(seqs)
    arrays = {"intensity": np.zeros((len(seq), 3), np.float32)}
    return Batch(seq, seq, None, arrays, {"received": seq})


def messages(run_id: str, *, received: int = 6, aborted: bool = False) -> list[list[Any]]:
    loss = Loss(received=received, missed=1, expected=9)
    stop = StopBody(stop=RunStop(run_id=run_id, reason="why", loss=loss), aborted=aborted)
    return [
        encode_start(run(run_id)),
        encode_batch(run_id, batch(1, 0)),
        *encode_failed(run_id, [Failure(2, 2, "integrate", "bad")]),
        *encode_dropped(run_id, [Dropped(3, 3, "ring full")]),
        encode_batch(run_id, batch(4, 5)),
        encode(stop),
    ]


def hear(process: TrackerProcess, parts: list[Any]) -> None:
    process.hear(decode([bytes(part) for part in parts]))
    process.advance()


def test_a_run_ends_when_all_its_items_have(process: tuple[TrackerProcess, Desk]) -> None:
    tracker, desk = process
    for parts in messages("ours"):
        assert "tracked" not in desk.reports
        hear(tracker, parts)
    loss = desk.stop().loss
    assert (loss.classified, loss.failed, loss.dropped) == (4, 1, {"ring full": 1})
    assert (loss.received, loss.missed, loss.not_read, loss.expected) == (6, 1, 2, 9)
    told = [m.body.type for m in desk.sent]
    assert told == ["start", "report", "report", "report", "report", "stop"]
    assert isinstance(desk.sent[0].body, StartBody)
    reports = [m.body for m in desk.sent if isinstance(m.body, ReportBody)]
    assert [r.position for r in reports] == [2, 3, 4, 6]
    assert [r.n for r in reports] == [2, 0, 0, 2]
    assert reports[1].failed == ((2, 2, "integrate", "bad"),)
    assert reports[2].dropped == ((3, 3, "ring full"),)


def test_messages_of_another_run_do_not_count(process: tuple[TrackerProcess, Desk]) -> None:
    tracker, desk = process
    hear(tracker, encode_start(run("ours")))
    for parts in messages("theirs"):
        hear(tracker, parts)
    for parts in messages("theirs", aborted=True):
        hear(tracker, parts)
    assert "tracked" not in desk.reports
    assert [m.body.type for m in desk.sent] == ["start"]
    for parts in messages("ours"):
        hear(tracker, parts)
    assert desk.stop().loss.classified == 4


def test_an_abort_leaves_no_item_without_an_end(process: tuple[TrackerProcess, Desk]) -> None:
    tracker, desk = process
    start, first, failed, *_ = messages("ours")
    for parts in (start, first, failed, messages("ours", received=8, aborted=True)[-1]):
        hear(tracker, parts)
    stop = desk.stop()
    assert (stop.loss.classified, stop.loss.failed, stop.loss.received) == (2, 6, 8)
    assert {(k.stage, k.n) for k in stop.failures} == {("integrate", 1), ("run", 5)}
    hear(tracker, messages("ours")[4])
    assert desk.sent[-1].body.type == "stop"


def test_an_abort_before_the_start_is_told_too(process: tuple[TrackerProcess, Desk]) -> None:
    tracker, desk = process
    tracker.abort("the reducer died", received=3, missed=0)
    assert desk.reports["tracked"]["begun"] is False
    assert desk.stop().loss.failed == 3


def test_one_that_comes_after_goes_on_from_what_the_sinks_have(
    process: tuple[TrackerProcess, Desk], transport: Transport, tmp_path: Path
) -> None:
    tracker, desk = process
    parts = messages("ours")
    for part in parts[:4]:
        hear(tracker, part)
    last = desk.sent[-2]  # the sinks had all but the last report when the tracker died
    assert isinstance(last.body, ReportBody)
    after, desk = begin(transport, tmp_path, again=True)
    assert isinstance(desk.sent[0].body, CreditBody)
    for part in parts:  # the receiver sends all that was not acknowledged, and some more
        hear(after, part)
    assert [m.body.type for m in desk.sent] == ["credit"]
    foreign = ResumeBody(run_id="theirs", position=5)
    after.resume(decode([bytes(p) for p in encode(foreign)]))
    resume = ResumeBody(run_id="ours", position=last.body.position)
    answer = encode(resume, {"state": last.arrays["state"]})
    after.resume(decode([bytes(p) for p in answer]))
    after.advance()
    bodies = [m.body for m in desk.sent]
    assert [b.type for b in bodies] == ["credit", "start", "report", "stop"]
    assert isinstance(bodies[2], ReportBody)
    assert (bodies[2].position, bodies[2].n, bodies[2].failed) == (6, 2, ())
    loss = desk.stop().loss
    assert (loss.classified, loss.failed, loss.dropped) == (4, 1, {"ring full": 1})


def predictions(*seqs: int) -> list[Any]:
    seq = np.array(seqs)
    probability = np.tile(np.array([0.9, 0.1], np.float32), (len(seq), 1))
    arrays = {"probability": probability, "novelty": np.zeros(len(seq), np.float32)}
    return encode_batch("ours", Batch(seq, seq, None, arrays, {"received": seq}))


def resets(desk: Desk) -> list[int]:
    bodies = [m.body for m in desk.sent]
    return [
        e.seq for b in bodies if isinstance(b, ReportBody) for e in b.events if e.kind == "reset"
    ]


def test_what_the_sinks_hold_says_which_resets_were_done(
    transport: Transport, tmp_path: Path
) -> None:
    tables = {"classifier": {"model": str(tmp_path)}}
    items = {"probability": ItemSpec.of((2,), "f4"), "novelty": ItemSpec.of((), "f4")}
    start = encode_start(
        RunStart(run_id="ours", source="a:b", items=items, classes=("before", "after"))
    )
    tracker, desk = begin(transport, tmp_path, again=False, **tables)
    hear(tracker, start)
    hear(tracker, predictions(0, 1))
    before = desk.sent[-1]
    tracker.reset(1)
    tracker.reset(1)
    hear(tracker, predictions(2, 3))
    after = desk.sent[-1]
    assert resets(desk) == [2]
    for last, due in ((before, [2]), (after, [])):
        assert isinstance(last.body, ReportBody)
        tracker, desk = begin(transport, tmp_path, again=True, **tables)
        hear(tracker, start)
        resume = ResumeBody(run_id="ours", position=last.body.position)
        parts = encode(resume, {"state": last.arrays["state"]})
        tracker.resume(decode([bytes(part) for part in parts]))
        assert "ready" in desk.reports
        tracker.reset(1)  # as one that is ready is told
        hear(tracker, predictions(2, 3))
        hear(tracker, predictions(4))
        assert resets(desk) == due
