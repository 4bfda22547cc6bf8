"""The demonstration, small."""

import pytest

from phasewatch.bench import demo


def test_the_main_job_from_beginning_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "TRAINING", ("--seed", "1", "--frames", "18", "--labels", "6"))
    monkeypatch.setattr(demo, "STREAM", ("--seed", "3", "--frames", "12"))
    monkeypatch.setattr(demo, "MODEL", "fcnn")
    assert demo.main(tmp_path / "demo") == 0
    said = capsys.readouterr().out
    assert "12 received + 0 missed = 12 expected; 12 classified, 0 dropped, 0 failed" in said
    assert "tracked phase is the true class in " in said
    for name in ("RESULT.nxs", "SUMMARY.json", "RESULT.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 0


def test_a_step_that_fails_ends_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "TRAINING", ("--frames", "0"))
    assert demo.main(tmp_path / "demo") != 0
    assert "frames" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def small_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
