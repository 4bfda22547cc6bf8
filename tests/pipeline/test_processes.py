"""Real processes over ZeroMQ: nothing lost, the same numbers as in one process, faults told."""

import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from phasewatch.models.errors import ModelError
from phasewatch.pipeline.bodies import ControlBody
from phasewatch.pipeline.build import reduce_stages
from phasewatch.pipeline.config import ClassifierConfig, Config, parse_config
from phasewatch.pipeline.messages import encode
from phasewatch.pipeline.plugin import found, open_sink, open_source
from phasewatch.pipeline.processes.supervisor import Outcome, supervise
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.replay import replay
from phasewatch.pipeline.transport.links import Transport
from phasewatch.pipeline.transport.request import Caller

pytestmark = pytest.mark.usefixtures("thirdparty")


def ramp(
    folder: Path, n: int = 40, *, runtime: dict[str, Any] | None = None, **source: Any
) -> Config:
    tables = {
        "source": {"uri": f"ramp:{n}", **source},
        "reduce": {"baseline": {"method": "asls", "lam": 1e3}},
        "runtime": runtime or {},
        "sink": [{"type": "lines", "path": "lines.json"}],
    }
    return parse_config(tables, name="test", folder=folder)


def documents(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lines.json").read_text().splitlines()]


def items(folder: Path) -> list[dict[str, Any]]:
    return [d for d in documents(folder) if "seq" in d]


def whole(outcome: Outcome) -> dict[str, Any]:
    assert outcome.stop is not None
    loss = outcome.stop.loss
    assert loss.received + loss.missed + loss.not_read == loss.expected
    assert loss.classified + loss.failed + sum(loss.dropped.values()) == loss.received
    return loss.model_dump()


def test_processes_and_one_process_agree_to_the_last_bit(tmp_path: Path) -> None:
    config = ramp(tmp_path, 60, runtime={"reducers": 2, "ring": 4})
    outcome = supervise(config)
    assert outcome.error is None
    assert whole(outcome)["classified"] == 60
    apart = items(tmp_path)
    source = open_source("ramp:60")
    stages = reduce_stages(config, source.start())
    alone = tmp_path / "alone"
    alone.mkdir()
    stop = replay(source, stages, open_sink("lines", path=str(alone / "lines.json")))
    assert items(alone) == apart
    assert [d["seq"] for d in apart] == list(range(60))
    assert {d["t_acq"] for d in apart} == {None}
    assert stop.loss == outcome.stop.loss


def test_bad_items_are_failures_and_the_run_goes_on(tmp_path: Path) -> None:
    bad = {3: "nan", 7: "shape", 8: "dtype", 11: "unreadable", 20: "skip", 21: "skip"}
    config = ramp(tmp_path, 30, bad=json.dumps(bad), t_acq=True)
    outcome = supervise(config)
    assert outcome.error is None
    loss = whole(outcome)
    assert (loss["received"], loss["missed"], loss["classified"], loss["failed"]) == (28, 2, 24, 4)
    failed = {d["id"]: (d["stage"], d["error"]) for d in documents(tmp_path) if "failed" in d}
    assert failed[3] == ("baseline", "pattern: no bin is finite")
    assert failed[7] == ("source", "intensity is float32 (63,); the run began with f4 (64,)")
    assert failed[8] == ("source", "intensity is float64 (64,); the run began with f4 (64,)")
    assert failed[11] == ("source", "item 11: cannot be read")
    assert [(d["id"], d["t_acq"]) for d in items(tmp_path)] == [
        (i, 10 * i) for i in range(30) if i not in bad
    ]
    assert sorted(k.n for k in outcome.stop.failures) == [1, 1, 2]


def test_gaps_in_ids_are_missed_where_nothing_was_expected(tmp_path: Path) -> None:
    bad = json.dumps({4: "skip", 5: "skip", 9: "skip"})
    outcome = supervise(ramp(tmp_path, 12, bad=bad, announce=False))
    loss = whole(outcome)
    assert (loss["received"], loss["missed"], loss["expected"]) == (9, 3, 12)


def test_batches_of_any_size_come_through(tmp_path: Path) -> None:
    runtime = {"reducers": 2, "ring": 50}
    outcome = supervise(ramp(tmp_path, 900, size=300, runtime=runtime))
    assert outcome.error is None
    assert whole(outcome)["classified"] == 900


def test_too_many_failures_in_a_row_stop_the_run(tmp_path: Path) -> None:
    bad = json.dumps(dict.fromkeys(range(10, 400), "nan"))
    outcome = supervise(ramp(tmp_path, 400, bad=bad, runtime={"failures_in_a_row": 20}))
    assert outcome.error is not None
    assert "more than 20 items in a row failed" in outcome.error
    loss = whole(outcome)
    assert loss["classified"] == 10
    assert loss["expected"] == 400


def test_a_source_that_breaks_ends_the_run_with_what_came(tmp_path: Path) -> None:
    outcome = supervise(ramp(tmp_path, 30, bad=json.dumps({17: "raise"})))
    assert outcome.error == "source: disk gone at item 17"
    assert whole(outcome)["not_read"] == 13
    assert whole(outcome)["classified"] == 17
    assert [d["seq"] for d in items(tmp_path)] == list(range(17))
    assert documents(tmp_path)[-1]["stop"]["reason"] == "source: disk gone at item 17"


@pytest.mark.parametrize("victim", ["reducer-0", "tracker", "sink", "receiver"])  # no restarts
def test_a_process_that_dies_is_told_and_the_others_end(tmp_path: Path, victim: str) -> None:
    pids: dict[str, int] = {}
    killed = []

    def update(view: View) -> None:
        if not killed and view.health.get("tracker", {}).get("classified", 0) > 0:
            killed.append(victim)
            os.kill(pids[victim], signal.SIGKILL)

    config = ramp(tmp_path, endless=True, runtime={"restarts": 0})
    outcome = supervise(config, on_update=update, on_start=pids.update)
    assert killed, outcome.error
    assert outcome.error == f"{victim} ended unexpectedly (exit code -9)"
    seqs = [d["seq"] for d in items(tmp_path)]
    assert seqs == list(range(len(seqs)))
    if victim != "tracker":
        loss = whole(outcome)
        assert loss["classified"] >= len(seqs)
    if victim in ("reducer-0", "receiver"):
        assert documents(tmp_path)[-1]["stop"]["loss"] == loss


def test_a_sink_that_cannot_write_is_one_line(tmp_path: Path) -> None:
    config = ramp(tmp_path, 30)
    sink = config.sink[0].model_copy(update={"fail_at": 5})
    outcome = supervise(config.model_copy(update={"sink": (sink,)}))
    assert outcome.error is not None
    assert "No space left on device" in outcome.error
    assert len(items(tmp_path)) == 5
    whole(outcome)


def test_status_stop_and_strangers_at_the_control_socket(tmp_path: Path) -> None:
    said: dict[str, Any] = {}

    def update(view: View) -> None:
        # The supervisor answers between two updates, so we ask without waiting and read later.
        if "link" not in said and view.health.get("tracker", {}).get("classified", 0) > 0:
            said["link"] = link = transport.link("dealer", view.control, bind=False)
            link.socket.send_multipart([b"garbage", b"\x00"])
            link.send(encode(ControlBody(what="status")))
            link.send(encode(ControlBody(what="dance")))
            for run_id in ("another", view.run_id):
                link.send(encode(ControlBody(what="stop", data={"run_id": run_id})))
        if "link" in said:
            while transport.poll([said["link"]], 0):
                received = said["link"].receive()
                assert received is not None
                body = received[1].body
                assert isinstance(body, ControlBody)
                said.setdefault(body.what, []).append(body.data)

    with Transport(linger_s=0) as transport:
        outcome = supervise(ramp(tmp_path, endless=True), on_update=update)
    assert outcome.error is None
    assert outcome.stop is not None
    assert outcome.stop.reason == "stopped by request"
    [status], [stopping] = said["status"], said["stopping"]
    assert status["processes"].keys() == {"receiver", "reducer-0", "tracker", "sink"}
    run_id = outcome.stop.run_id
    assert [error["text"] for error in said["error"]] == [
        "no command 'dance'; there are: status, stop, reset, load",
        f"run {run_id} is here, not the one that stop is meant for",
    ]
    assert stopping["run_id"] == run_id
    whole(outcome)


def test_a_run_is_stopped_by_its_name(tmp_path: Path) -> None:
    code = "import sys; from phasewatch.pipeline.cli import main; sys.exit(main())"
    ends: list[tuple[int, str]] = []
    asked: list[subprocess.Popen[str]] = []

    def update(view: View) -> None:
        if view.health.get("tracker", {}).get("classified", 0) == 0:
            return
        if len(asked) == len(ends) < 2:
            name = ("another", view.run_id[:8])[len(asked)]
            command = [sys.executable, "-c", code, "stop", view.control, "--wait", "60"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            asked.append(subprocess.Popen([*command, "--run", name], **pipes))
        elif len(ends) < 2 and asked[-1].poll() is not None:
            ends.append((asked[-1].returncode, asked[-1].communicate()[0]))

    outcome = supervise(ramp(tmp_path, endless=True), on_update=update)
    assert outcome.error is None
    assert outcome.stop is not None
    run_id = outcome.stop.run_id
    ends += [(p.wait(), p.communicate()[0]) for p in asked[len(ends) :]]
    (refused, why), (stopped, said) = ends
    assert (refused, stopped) == (1, 0)
    assert f"run {run_id} is there, not another" in why
    assert said == f"stopping run {run_id}\n"


def test_processes_that_hang_before_their_first_word_end_the_run(tmp_path: Path) -> None:
    def stop(pids: dict[str, int]) -> None:
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)

    turns = count(0, 1_000_000_000)  # at each look at the clock a second has gone by
    outcome = supervise(ramp(tmp_path), on_start=stop, clock=lambda: next(turns))
    assert outcome.stop is None
    assert outcome.error == "receiver said nothing for 60 s after its start"


def test_an_interruption_before_all_are_ready_ends_at_once(tmp_path: Path) -> None:
    interrupted = []

    def interrupt(view: View) -> None:
        if view.source and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise(
            ramp(tmp_path),
            on_start=lambda pids: os.kill(pids["reducer-0"], signal.SIGSTOP),
            on_update=interrupt,
        )


def test_a_live_run_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    def update(view: View) -> None:
        if view.health.get("tracker", {}).get("dropped"):
            with Transport(linger_s=1) as transport:
                transport.link("dealer", view.control, bind=False).send(
                    encode(ControlBody(what="stop"))
                )

    live = {"mode": "live", "ring": 2, "credits": 1}
    outcome = supervise(ramp(tmp_path, endless=True, runtime=live), on_update=update)
    loss = whole(outcome)
    assert loss["dropped"]["ring full"] > 0
    assert loss["failed"] == 0
    seqs = [d["seq"] for d in items(tmp_path)]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == loss["classified"]
    dropped = [d for d in documents(tmp_path) if "dropped" in d]
    assert len(dropped) == loss["dropped"]["ring full"]
    assert not {d["dropped"] for d in dropped} & set(seqs)


def test_a_run_that_cannot_begin_says_why(tmp_path: Path) -> None:
    config = ramp(tmp_path, 5)
    wrong = config.reduce.model_copy(update={"normalise": "monitor"})
    outcome = supervise(config.model_copy(update={"reduce": wrong}))
    assert outcome.error == "[reduce] normalise: monitor, but the source gives no monitor"
    nowhere = ClassifierConfig(model=tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"nowhere/card\.json is missing"):
        supervise(config.model_copy(update={"classifier": nowhere}))
    unknown = config.source.model_copy(update={"uri": "nosuch:thing"})
    outcome = supervise(config.model_copy(update={"source": unknown}))
    assert outcome.error is not None
    assert outcome.error.startswith("source 'nosuch' is not known; there are: asapo, dectris, ")


@pytest.mark.parametrize(
    ("bug", "said"), [("bug", "KeyError: 'no such thing'"), ("mute", "RuntimeError")]
)
def test_a_bug_in_a_plug_in_is_one_line(tmp_path: Path, bug: str, said: str) -> None:
    outcome = supervise(ramp(tmp_path, 30, bad=json.dumps({3: bug})))
    assert outcome.error == f"source: {said}"
    assert whole(outcome)["classified"] == 3


def test_options_of_a_wrong_type_are_one_line(tmp_path: Path) -> None:
    outcome = supervise(ramp(tmp_path, 5, endless="perhaps"))
    assert outcome.error is not None
    assert outcome.error.startswith("[source] ramp: key 'endless': Input should be a valid boolean")


def test_the_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from phasewatch.pipeline.config import parse_config
        from phasewatch.pipeline.processes.supervisor import supervise
        tables = {{"source": {{"uri": "ramp:1", "endless": True}},
                  "reduce": {{"baseline": {{"method": "none"}}}},
                  "sink": [{{"type": "lines", "path": "lines.json"}}]}}
        def update(view):
            if view.health.get("sink", {{}}).get("written"):
                print(flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        supervise(parse_config(tables, name="t", folder=Path({str(tmp_path)!r})),
                  on_update=update, on_start=lambda pids: print(*pids.values(), flush=True))
    """
    parent = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert parent.returncode == -signal.SIGKILL
    # Each child holds our pipe open as its own standard output: `run` returned when all had ended.
    for pid in parent.stdout.split():
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    assert items(tmp_path)


def test_an_empty_run_ends(tmp_path: Path) -> None:
    outcome = supervise(ramp(tmp_path, 0))
    assert outcome.error is None
    assert whole(outcome)["received"] == 0


def test_nobody_is_at_the_address_of_a_run_that_is_over(tmp_path: Path) -> None:
    seen = []
    supervise(ramp(tmp_path, 3), on_update=lambda view: seen.append(view.control))
    with Caller(seen[-1]) as caller, pytest.raises(ValueError, match="no answer"):
        caller.ask("status", timeout_s=0.05)


def test_a_third_party_plug_in_needs_no_change_here(tmp_path: Path) -> None:
    assert found("sources")["ramp"].value == "thirdparty_phasewatch:open_source"
    assert found("sinks")["lines"].dist.name == "thirdparty-phasewatch"
    with pytest.raises(ValueError, match=r"\[source\] ramp: unknown key 'speed'; known: endless"):
        open_source("ramp:3", speed=2)
    with pytest.raises(ValueError, match=r"\[\[sink\]\] lines: key 'path' is missing"):
        open_sink("lines")
    with pytest.raises(ValueError, match="not SCHEME:TARGET"):
        open_source("ramp")
