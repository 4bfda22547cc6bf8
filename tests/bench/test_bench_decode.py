"""``phasewatch bench decode``: it measures what it says; how fast is no matter here."""

import json
from pathlib import Path

import pytest

from phasewatch.bench import decode
from phasewatch.pipeline.cli import main


def test_it_decodes_and_counts_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "ROUNDS", 1)
    monkeypatch.setattr(decode, "COUNTS", (1.0,))
    assert main(["bench", "decode", "--json", str(tmp_path / "d.json")]) == 0
    report = json.loads((tmp_path / "d.json").read_text())
    assert [row["dtype"] for row in report["rows"]] == ["u1", "u2", "u4"]
    for row in report["rows"]:
        assert row["user_copies"] > 1.0
        assert row["our_copies"] < 0.1
        assert len(row["samples_ns"]["ours"]) == 1
