"""The harness of `phasewatch bench reduction`; what it measures is no matter here."""

import json

import pytest

from phasewatch.bench import reduction
from phasewatch.bench.machine import describe
from phasewatch.bench.measure import cores, interleaved, median_ms
from phasewatch.pipeline.cli import main


def test_contenders_take_turns_and_the_first_call_is_not_counted():
    called = []
    contenders = {name: (lambda name=name: called.append(name)) for name in "abc"}
    samples = interleaved(contenders, rounds=3, budget_s=60)
    assert "".join(called) == "abc" + "abc" + "cba" + "abc"
    assert {name: len(s) for name, s in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(t >= 0 for s in samples.values() for t in s)


def test_a_spent_budget_still_gives_one_round():
    samples = interleaved({"a": lambda: None}, rounds=9, budget_s=0)
    assert len(samples["a"]) == 1
    assert median_ms([1_000_000, 3_000_000, 2_000_000]) == 2.0


def test_cores_are_given_back():
    before = describe()["cores"]
    with cores(1):
        assert describe()["cores"] == 1
    assert describe()["cores"] == before
    assert describe()["versions"]["pyFAI"]


def test_the_report_holds_raw_times_and_the_machine(tmp_path, monkeypatch, capsys):
    for name, value in {
        "SIZES": ("Lambda60k",),
        "BINS": (200,),
        "SPLITS": ("no", "full"),
        "ROUNDS": 1,
        "BUDGET_S": 0,
    }.items():
        monkeypatch.setattr(reduction, name, value)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "reduction", "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["scenario"] == "reduction"
    assert report["machine"]["processor"]
    whats = [row["what"] for row in report["rows"]]
    assert whats[:3] == ["integrate, split no", "integrate, split full", "baseline, asls"]
    for row in report["rows"]:
        assert row["deviation"] < 1e-6
        assert row["ratio"] == pytest.approx(row["yardstick_ms"] / row["ours_ms"])
        assert len(row["samples_ns"]["ours"]) >= 1
    assert "pyFAI" in capsys.readouterr().out
