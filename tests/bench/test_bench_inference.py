"""The harness of `phasewatch bench inference`; how fast it is is no matter here."""

import json

import pytest

from phasewatch.bench import inference
from phasewatch.pipeline.cli import main


def test_the_report_holds_raw_times_and_the_machine(tmp_path, monkeypatch, capsys):
    for name, value in {"POINTS": 300, "BATCHES": (1, 16), "ROUNDS": 1, "BUDGET_S": 0}.items():
        monkeypatch.setattr(inference, name, value)
    # One of each kind: compiled, run by torch with patterns before, voting bins, and no network.
    models = ["cnn", "lstm", "binned-fcnn", "pca-spectral"]
    monkeypatch.setattr(inference, "names", lambda: models)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "inference", "--json", str(tmp_path / "i.json")]) == 0
    report = json.loads((tmp_path / "i.json").read_text())
    assert report["scenario"] == "inference"
    assert report["machine"]["processor"]
    assert [(r["model"], r["batch"]) for r in report["rows"]] == [
        (model, batch) for model in models for batch in (1, 16)
    ]
    for row in report["rows"]:
        assert row["deviation"] < 1e-5
        assert row["same_labels"]
        assert row["ratio"] == pytest.approx(row["eager_us"] / row["predictor_us"])
        assert row["rate_hz"] == pytest.approx(1e6 / row["stage_us"])
        assert {"eager", "predictor", "stage"} <= set(row["samples_ns"])
    assert "patterns/s" in capsys.readouterr().out
