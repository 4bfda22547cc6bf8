"""The harness of `phasewatch bench reduction`; what it measures is no matter here."""

import json
import os

import pytest

from phasewatch.bench import reduction, scaling
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
    small = {"ROUNDS": 1, "BUDGET_S": 0}
    for name, value in {
        "SIZES": ("Lambda60k",),
        "BINS": (200,),
        "SPLITS": ("no", "full"),
        "CAKE_OF": "Lambda60k",
        "CAKE_BINS": (50, 12),
        **small,
    }.items():
        monkeypatch.setattr(reduction, name, value)
    for name, value in {
        "SIDES": (20, 40),
        "FRAMES": (1, 3, 9),
        "SPLITS": ("no", "bbox"),
        "DETECTOR": "Lambda60k",
        "N_BINS": 100,
        "STARTS": 1,
        **small,
    }.items():
        monkeypatch.setattr(scaling, name, value)
    monkeypatch.setenv("COLUMNS", "200")
    cache = os.environ.get("PHASEWATCH_CACHE")
    assert main(["bench", "reduction", "--json", str(tmp_path / "r.json")]) == 0
    assert os.environ.get("PHASEWATCH_CACHE") == cache
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["scenario"] == "reduction"
    assert report["machine"]["processor"]
    whats = {row["what"] for row in report["rows"]}
    assert whats == {
        *("integrate, split no", "integrate, split full"),
        *("cake, split no", "cake, split full", "baseline, asls"),
    }
    for row in report["rows"]:
        assert row["deviation"] < 1e-6
        assert row["ratio"] == pytest.approx(row["yardstick_ms"] / row["ours_ms"])
        assert len(row["samples_ns"]["ours"]) >= 1
    curves = {(p["what"], p["x"]) for p in report["points"]}
    assert curves == {
        *(
            (f"split {s}, {n}", x)
            for s in ("no", "bbox")
            for x in (0.0004, 0.0016)
            for n in ("8 a call", "one a call", "pyFAI")
        ),
        *((f"split {s}, Lambda60k", n) for s in ("no", "bbox") for n in (1, 3, 9)),
        *(
            (f"plan of Lambda60k, split {s}, {c}", 1)
            for s in ("no", "bbox")
            for c in ("cached", "not cached")
        ),
    }
    assert all(p["per"] > 0 and p["samples_ns"] for p in report["points"])
    out = capsys.readouterr().out
    assert "pyFAI" in out
    assert "one a call" in out
