"""Load through real processes: what comes out is whole, and nothing is left behind."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from phasewatch.bench.load import session
from phasewatch.bench.load.generator import main as announce
from phasewatch.bench.load.generator import rows
from phasewatch.bench.load.latency import latencies
from phasewatch.bench.load.measure import generator, run_null
from phasewatch.bench.load.page import page
from phasewatch.bench.load.plan import Load
from phasewatch.bench.load.report import lines
from phasewatch.bench.load.sink import BLOCK, LatencySink, read_times
from phasewatch.bench.load.source import LoadSource
from phasewatch.bench.load.store import gather, read_store, write_store
from phasewatch.bench.load.workload import prepare
from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.cli import main
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError

pytestmark = pytest.mark.usefixtures("clean_host")

N_POINTS = 64


def patterns(n: int) -> np.ndarray:
    axis = np.linspace(5.0, 20.0, N_POINTS)
    peak = np.exp(-((axis - 8 - np.arange(n)[:, None] / 4) ** 2))
    return (peak + np.random.default_rng(0).random((n, N_POINTS)) / 50).astype(np.float32)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    axis = np.linspace(5.0, 20.0, N_POINTS)
    np.savez(tmp_path / "s.npz", x=axis, intensity=patterns(9), x_name="2th_deg")
    text = '[source]\nuri = "series:s.npz"\n[reduce]\nbaseline = {method = "asls", lam = 1e3}\n'
    text += '[[sink]]\ntype = "nexus"\npath = "result.nxs"\n'
    (tmp_path / "result.nxs").write_text("of another run")
    (tmp_path / "chain.toml").write_text(text)
    return tmp_path / "chain.toml"


class Source:
    """A source of a few patterns, of which one cannot be read."""

    closed = False

    def start(self) -> RunStart:
        items = {"intensity": ItemSpec.of((N_POINTS,), "f4")}
        constants = {"axis": np.linspace(5.0, 20.0, N_POINTS)}
        return RunStart(
            run_id="s", source="s", items=items, unit="2th_deg", constants=constants, expected=5
        )

    def __iter__(self) -> Iterator[Batch | Failure | None]:
        for i in range(5):
            one = np.array([i])
            yield None
            yield Batch(one, one, None, {"intensity": patterns(5)[i : i + 1]})
            yield Failure(i, i, "source", "cannot be read")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run, batch = gather(Source(), 5)
    write_store(run, batch, tmp_path / "store")
    return tmp_path / "store"


def load(store: Path, scenario="offline", n=40, **more) -> Load:
    return Load(scenario, n, store=str(store), stored=5, at_once=8, **more)


def test_a_store_gives_back_what_was_gathered(store: Path) -> None:
    found = read_store(store)
    assert found.n == 5
    assert np.array_equal(found.arrays["intensity"], patterns(5))
    assert np.array_equal(found.run.constants["axis"], np.linspace(5.0, 20.0, N_POINTS))
    source = Source()
    assert len(gather(source, 3)[1]) == 3
    assert source.closed
    with pytest.raises(PipelineError, match="not a store of items"):
        read_store(store / "absent")


@pytest.mark.parametrize("lent", [None, 3])
def test_items_are_copied_into_what_the_receiver_lends(tmp_path, store, lent) -> None:
    load(store).write(tmp_path / "run")
    ring = {"intensity": np.full((8, N_POINTS), np.nan, np.float32)}
    seen, stamps = [], []
    with generator(tmp_path / "run"):
        source = LoadSource(tmp_path / "run")
        try:
            assert source.start().expected == 40
            if lent is not None:
                source.lend(lambda n: {k: a[: min(n, lent)] for k, a in ring.items()})
            for batch in source:
                if batch is None:
                    continue
                assert len(batch) <= (lent or 8)
                inside = np.shares_memory(batch.arrays["intensity"], ring["intensity"])
                assert inside == (lent is not None)
                expected = patterns(5)[batch.ids % 5]
                assert np.array_equal(batch.arrays["intensity"], expected)
                seen += batch.seq.tolist()
                stamps.append(batch.stamps["announced"] - batch.stamps["due"])
        finally:
            source.close()
    assert seen == list(range(40))
    assert np.concatenate(stamps).min() >= 0


@pytest.mark.parametrize(
    ("scenario", "more"),
    [("single-stream", {}), ("server", {"rate_hz": 2000.0, "poisson": True}), ("offline", {})],
)
def test_the_null_system_gives_the_time_of_every_item(tmp_path, store, scenario, more) -> None:
    times = run_null(load(store, scenario, **more), tmp_path / "run")
    assert times["id"].tolist() == list(range(40))
    assert latencies(times).min() > 0
    assert (times["announced"] >= times["due"]).all()
    if scenario == "single-stream":
        assert (times["due"][1:] > times["delivered"][:-1]).all()


def test_a_generator_that_fails_is_told(tmp_path, store) -> None:
    load(store, rate_hz=1.0, scenario="server").write(tmp_path / "run")
    text = (tmp_path / "run" / "load.json").read_text().replace("1.0", "-1.0")
    (tmp_path / "run" / "load.json").write_text(text)
    again = tmp_path / "again"
    bad = Load.read(tmp_path / "run")
    with pytest.raises(PipelineError, match="generator ended early"):
        run_null(bad, again)


def test_the_sink_keeps_all_stamps_of_more_than_one_block(tmp_path) -> None:
    ticks = iter(range(100))
    sink = LatencySink(tmp_path / "t.h5", clock=lambda: next(ticks))
    n, size = BLOCK + 1000, 1000
    for first in range(0, n, size):
        seq = np.arange(first, min(first + size, n))
        sink.batch(Batch(seq, seq + 7, None, {}, {"due": 3 * seq, "odd": 5 * seq}))
    sink.close()
    sink.close()
    times = read_times(tmp_path / "t.h5")
    assert list(times) == ["seq", "id", "due", "odd", "delivered"]
    seq = np.arange(n)
    for name, expected in {"seq": seq, "id": seq + 7, "due": 3 * seq, "odd": 5 * seq}.items():
        assert np.array_equal(times[name], expected)
    assert np.array_equal(times["delivered"], seq // size)
    LatencySink(tmp_path / "empty.h5").close()
    assert read_times(tmp_path / "empty.h5") == {}
    with pytest.raises(PipelineError, match="not a file of the latency sink"):
        read_times(tmp_path / "absent.h5")


def test_the_built_in_patterns_are_clean_and_their_model_fits_them(tmp_path) -> None:
    workload = prepare(tmp_path, what="patterns", network="fcnn", stored=3)
    found = read_store(workload.store)
    assert (found.n, workload.stored, workload.kind) == (3, 3, "patterns")
    assert (found.arrays["intensity"].min(), found.arrays["intensity"].max()) == (0, 1)
    assert found.run.settings["normalise"] == "minmax"
    from phasewatch.models.predict import Predictor

    predictor = Predictor.load(workload.config.classifier.model, device="cpu")
    assert predictor.card.training.provenance == "untrained"
    assert predictor(found.arrays["intensity"]).probability.shape == (3, 3)


def check(document: dict, n: int, scenario: str) -> None:
    assert document["scenario"] == scenario
    assert document["frames"] == document["frames"] | {"received": n, "classified": n, "failed": 0}
    latency = document["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"]
    assert latency["per_stage"].keys() >= {"generator", "read", "reduce", "track", "deliver"}
    assert document["null"]["latency_ms"]["p50"] > 0
    assert document["memory_mib"].keys() >= {"receiver", "tracker", "sink"}
    assert document["machine"]["processor"]
    assert document["versions"]["numpy"]


def test_offline_through_processes(tmp_path, config, capsys) -> None:
    out, html = tmp_path / "o.json", tmp_path / "o.html"
    arguments = ["--config", str(config), "--json", str(out), "--html", str(html)]
    assert main(["bench", "offline", "--frames", "300", *arguments]) == 0
    document = json.loads(out.read_text())
    check(document, 300, "offline")
    assert [s["type"] for s in document["configuration"]["sink"]] == ["nexus", "latency"]
    assert (tmp_path / "result.nxs").read_text() == "of another run"
    assert not list(tmp_path.glob("*.bench*"))
    assert document["verdict"] == "VALID"
    assert "VALID" in capsys.readouterr().out
    with h5py.File(tmp_path / document["raw"]) as raw:
        assert sorted(raw) == ["chain", "generator", "null"]
        times = {name: values[:] for name, values in raw["chain"].items()}
        null = {name: values[:] for name, values in raw["null"].items()}
    assert times["id"].tolist() == list(range(300))
    assert max(latencies(times)) / 1e6 == pytest.approx(document["latency_ms"]["max"], abs=1e-6)
    assert any(line.startswith("rate: ") for line in lines(document))
    text = html.read_text()
    assert text == page(document | {"raw": None}, times, null)
    assert text.count("<svg") == 3
    for outside in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"):
        text = text.replace(outside, "")  # names, not places
    assert "<script" not in text
    assert "src=" not in text


def test_server_through_processes(tmp_path, config) -> None:
    out = tmp_path / "s.json"
    arguments = ["--config", str(config), "--json", str(out), "--poisson"]
    assert main(["bench", "server", "--rate", "400", "--duration", "0.5", *arguments]) == 0
    document = json.loads(out.read_text())
    check(document, 200, "server")
    assert document["verdict"] == "INVALID"
    assert "short of the 60 s" in document["reason"]
    assert (document["offered_hz"], document["arrivals"]) == (400.0, "poisson")


def test_what_a_killed_invocation_left_is_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(session, "SHARED_MEMORY", tmp_path)
    (tmp_path / f"phasewatch-load-{2**22 + 1}-x").mkdir()
    (tmp_path / f"phasewatch-load-{os.getpid()}-x").mkdir()
    (tmp_path / "phasewatch-load-else").mkdir()
    with session.work_folder() as folder:
        left = {p.name for p in tmp_path.iterdir()}
        assert left == {folder.name, f"phasewatch-load-{os.getpid()}-x", "phasewatch-load-else"}
    assert not folder.exists()


def test_every_scenario_says_what_it_takes(capsys) -> None:
    for scenario in ("single-stream", "server", "offline", "find-peak", "compare", "record"):
        assert main(["bench", scenario, "--help"]) == 0
        assert "--" in capsys.readouterr().out
    assert main(["bench", "server"]) != 0
    assert "--rate" in capsys.readouterr().err


def test_rows_name_the_item_of_the_store() -> None:
    block = rows(load(Path("s")), 12, np.array([5, 6]), 9)
    assert np.frombuffer(block, np.int64).reshape(-1, 4).tolist() == [[12, 5, 2, 9], [13, 6, 3, 9]]


def test_a_generator_whose_parent_has_gone_ends(tmp_path, store) -> None:
    load(store).write(tmp_path / "run")
    assert announce(tmp_path / "run", parent=os.getpid()) == 1  # its parent is another
