"""The command line: help that teaches, one line per mistake."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from phasewatch.pipeline.cli import main
from phasewatch.pipeline.documents import Event, FailureKind, Loss, RunStop, Zone
from phasewatch.pipeline.processes.view import View
from phasewatch.pipeline.progress import line
from phasewatch.pipeline.summary import lines


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) != 0
    error = capsys.readouterr().err
    assert error.startswith("phasewatch: ")
    assert error.count("\n") == 1, error
    return error


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for command in ("run", "train", "evaluate", "simulate", "plugins", "status", "stop"):
        assert f"\n  {command} " in said
        assert main([command, "--help"]) == 0
    assert "[classifier]" in said


def test_help_and_the_pipeline_do_without_torch_and_pyfai() -> None:
    code = (
        "import sys, phasewatch.pipeline, phasewatch.pipeline.cli as c; c.main(['--help']);"
        "sys.exit(bool({'torch', 'pyFAI', 'numba', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there.toml: No such file" in fails(capsys, "run", str(tmp_path / "there.toml"))
    (tmp_path / "bad.toml").write_text("[source]\nuri = 3")
    assert "bad.toml: [source] uri: " in fails(capsys, "run", str(tmp_path / "bad.toml"))
    assert "'dance'" in fails(capsys, "dance")
    assert "--summry" in fails(capsys, "run", "x.toml", "--summry", "y")
    assert "--wait" in fails(capsys, "status", "tcp://127.0.0.1:9", "--wait", "-3")
    assert "no answer within" in fails(capsys, "status", "tcp://127.0.0.1:9", "--wait", "0.05")
    assert "cannot connect" in fails(capsys, "stop", "nonsense")


def test_an_interruption_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typer takes it, prints nothing and returns what a shell would."""
    built = typer.Typer()

    @built.callback()
    def group() -> None:
        pass

    @built.command()
    def wait() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phasewatch.pipeline.cli.app", lambda: built)
    assert main(["wait"]) == 130
    assert capsys.readouterr().err == "phasewatch: interrupted\n"


@pytest.mark.usefixtures("thirdparty")
def test_a_broken_plug_in_does_not_hide_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be loaded" in fails(capsys, "broken")
    assert main(["plugins"]) == 0
    said = capsys.readouterr().out
    assert "phasewatch broken   (thirdparty-phasewatch 1.0) cannot be loaded" in said
    assert '[source] uri = "ramp:TARGET"   (thirdparty-phasewatch 1.0)' in said
    assert "keys: endless = False, bad = '', t_acq = False, announce = True, size = 1" in said


def test_a_run_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    axis = np.linspace(5, 20, 64)
    rows = np.random.default_rng(0).random((20, 64)) + np.exp(-((axis - 10) ** 2))
    np.savez(tmp_path / "s.npz", x=axis, intensity=rows, x_name="2th_deg")
    config = tmp_path / "run.toml"
    config.write_text(
        '[source]\nuri = "series:s.npz"\n[reduce]\nbaseline = {method = "asls", lam = 1e3}\n'
    )
    out, summary = tmp_path / "out.nxs", tmp_path / "summary.json"
    arguments = ["run", str(config), "--out", str(out), "--summary", str(summary)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "20 received + 0 missed = 20 expected; 20 reduced, 0 dropped, 0 failed" in said
    assert out.exists()
    assert summary.exists()
    error = fails(capsys, *arguments)
    assert "out.nxs exists and is not overwritten" in error
    arguments[-1] = str(tmp_path / "nowhere" / "s.json")
    assert "there is no folder" in fails(capsys, *arguments)


def test_every_module_of_the_pipeline_but_the_classifiers_does_without_torch() -> None:
    import phasewatch.pipeline as package

    root = Path(package.__path__[0])
    names = [
        ".".join(("phasewatch.pipeline", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if path.name not in ("__init__.py", "classify.py", "accelerated.py")
    ]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; "
    code += "sys.exit('torch' in sys.modules)"
    assert "phasewatch.pipeline.stages.track" in names
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--debug", "run", str(tmp_path / "there.toml")])


def test_the_progress_line_says_what_matters() -> None:
    view = View(run_id="r", control="tcp://127.0.0.1:1", expected=50, classes=("before", "after"))
    assert line(view) == "starting (no process is up yet)"
    view.health = {
        "receiver": {"received": 30},
        "tracker": {
            "classified": 25,
            "failed": 2,
            "dropped": {},
            "phase": 1,
            "posterior": 0.987,
            "zones": ({"boundary": 0, "after": 9, "before": 13, "n": 3, "passed": True},),
            "confidence": 0.88,
        },
        "sink": {"rate_hz": 81.26, "p50_ms": 9.2, "p99_ms": 21.0},
    }
    assert line(view) == (
        "25/50 done  81.3/s  2 failed  latency p50 9 p99 21 ms  phase after 0.99  zone 10-12  "
        "confidence 88.0%"
    )


def test_the_summary_names_the_classes() -> None:
    stop = RunStop(
        run_id="r",
        reason="stopped by request",
        loss=Loss(
            expected=12,
            received=8,
            missed=1,
            classified=5,
            dropped={"ring full": 2},
            failed=1,
            not_read=3,
        ),
        confidence=0.5,
        failures=(FailureKind(stage="baseline", error="no bin is finite", n=1, first_seq=6),),
        zones=(
            Zone(boundary=0, after=2, before=5, n=2, passed=True),
            Zone(boundary=1, after=7, before=8, n=0, passed=False),
        ),
        events=(Event(kind="onset", seq=4, id=14, t_acq=None, phase=1, posterior=0.9),),
    )
    assert lines(stop, ("bcc", "hcp", "fcc")) == [
        "8 received + 1 missed + 3 not read = 12 expected; "
        "5 classified, 2 dropped (ring full), 1 failed",
        "1 failed in baseline, first 6: no bin is finite",
        "classification confidence 50.00%",
        "bcc | hcp: last sure 2, first sure 5, 2 ambiguous between",
        "hcp | fcc: not passed",
        "onset at 4 (id 14), posterior 0.900",
        "ended early: stopped by request",
    ]
