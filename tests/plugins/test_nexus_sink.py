"""The result file: its layout, its readers while it is written, and what can go wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import silx.io
from silx.io import nxdata

from phasewatch.pipeline.batch import Batch, Failure
from phasewatch.pipeline.documents import Event, ItemSpec, Loss, RunStart, RunStop, Zone
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_sink, open_source
from phasewatch.plugins.result import read_result
from phasewatch.plugins.sinks import nexus

AXIS = np.linspace(5.0, 20.0, 40)
CLASSES = ("before", "during", "after")
EVENT = Event(kind="onset", seq=3, id=103, t_acq=None, phase=1, posterior=0.97)


def run_start(*, classified: bool = True) -> RunStart:
    items = {"intensity": ItemSpec.of((40,), np.float32)}
    if classified:
        items |= {
            "probability": ItemSpec.of((3,), np.float32),
            "label": ItemSpec.of((), np.int32),
            "novelty": ItemSpec.of((), np.float32),
            "posterior": ItemSpec.of((3,), np.float32),
            "phase": ItemSpec.of((), np.int32),
        }
    return RunStart(
        run_id="run7",
        source="simulate:iron",
        items=items,
        unit="2th_deg",
        expected=20,
        classes=CLASSES if classified else (),
        digests={"model": "ab"},
        settings={"normalise": "minmax", "configuration": {"source": {"uri": "simulate:iron"}}},
        constants={"axis": AXIS},
    )


def batch(first: int, n: int, *, classified: bool = True, timed: bool = False) -> Batch:
    seq = np.arange(first, first + n, dtype=np.int64)
    rng = np.random.default_rng(first)
    arrays = {"intensity": rng.random((n, 40), np.float32)}
    if classified:
        arrays |= {
            "probability": rng.random((n, 3), np.float32),
            "label": rng.integers(0, 3, n, np.int32),
            "novelty": rng.random(n, np.float32),
            "posterior": rng.random((n, 3), np.float32),
            "phase": rng.integers(0, 3, n, np.int32),
        }
    return Batch(seq, seq + 100, seq * 10**9 if timed else None, arrays)


def run_stop() -> RunStop:
    return RunStop(
        run_id="run7",
        reason="end of run",
        loss=Loss(expected=20, received=8, missed=12, classified=7, failed=1),
        confidence=0.75,
        zones=(Zone(boundary=0, after=2, before=5, n=2, passed=True),),
        events=(EVENT,),
    )


def test_whole_result(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    batches = [batch(0, 3, timed=True), batch(3, 1, timed=True), batch(5, 3, timed=True)]
    sink.start(run_start())
    for b in batches:
        sink.batch(b)
    sink.failures([Failure(4, 104, "integrate", "all pixels are masked: übel")])
    sink.event(EVENT)
    sink.stop(run_stop())
    sink.close()
    sink.close()

    result = read_result(path)
    for name in batches[0].arrays:
        expected = np.concatenate([b.arrays[name] for b in batches])
        np.testing.assert_array_equal(result.arrays[name], expected)
        assert result.arrays[name].dtype == expected.dtype
    assert result.seq.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert result.ids.tolist() == [100, 101, 102, 103, 105, 106, 107]
    assert result.t_acq.tolist() == [s * 10**9 for s in result.seq.tolist()]
    np.testing.assert_array_equal(result.axis, AXIS)
    assert result.failures == (Failure(4, 104, "integrate", "all pixels are masked: übel"),)
    assert result.events == (EVENT,)
    assert result.zones == run_stop().zones
    assert result.confidence == 0.75
    assert result.stop == run_stop()
    assert result.loss == run_stop().loss
    assert result.start == run_start().evolve(constants={})
    assert "phasewatch" in result.versions


def test_layout_others_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 4))
    sink.stop(run_stop())
    sink.close()
    with h5py.File(path) as file:
        entry = file["entry"]
        assert entry.attrs["NX_class"] == "NXentry"
        assert entry.attrs["default"] == "patterns"
        assert entry["patterns/intensity"].shape == (4, 40)
        assert entry["patterns/axis"].dtype == np.float64
        assert entry["patterns/axis"].attrs["unit"] == "2th_deg"
        assert entry["patterns/axis"].attrs["units"] == "deg"
        assert json.loads(entry["classification"].attrs["classes"]) == list(CLASSES)
        assert entry["track/confidence"][()] == 0.75
        zones = json.loads(entry["track/zones"][()])
        assert zones == [{"boundary": 0, "after": 2, "before": 5, "n": 2, "passed": True}]
        assert json.loads(entry["track/events"][()])[0]["kind"] == "onset"
        assert entry["frame/t_acq"][:].tolist() == [-1] * 4
        assert json.loads(entry["provenance/configuration"][()])["source"]
        assert json.loads(entry["loss/table"][()])["failed"] == 1


def test_a_variance_becomes_the_errors_of_the_signal(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    start, one = run_start(classified=False), batch(0, 5, classified=False)
    sink = open_sink("nexus", path=str(path))
    sink.start(start.evolve(items={**start.items, "variance": start.items["intensity"]}))
    variance = np.random.default_rng(1).random((5, 40), np.float32)
    sink.batch(one.with_arrays(variance=variance))
    sink.close()
    assert "variance" not in read_result(path).arrays
    np.testing.assert_array_equal(read_result(path).arrays["intensity_errors"], np.sqrt(variance))
    with silx.io.open(str(path)) as file:
        plot = nxdata.get_default(file["entry"])
        np.testing.assert_array_equal(plot.errors[()], np.sqrt(variance))


def test_silx_plots_it(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 5))
    sink.close()
    with silx.io.open(str(path)) as file:
        plot = nxdata.get_default(file["entry"])
        assert plot is not None
        assert plot.is_valid
        assert plot.signal_name == "intensity"
        np.testing.assert_array_equal(plot.axes[-1][()], AXIS)
        assert plot.axes_names[-1] == "two theta (deg)"
        labels = nxdata.get_default(file["entry/classification"])
        assert labels is not None
        assert labels.is_valid
        assert labels.signal_name == "probability"


def test_run_without_classifier(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start(classified=False))
    sink.batch(batch(0, 4, classified=False))
    sink.event(EVENT)
    sink.stop(run_stop())
    sink.close()
    with h5py.File(path) as file:
        assert set(file["entry"]) == {"title", "patterns", "frame", "loss", "provenance"}
    assert list(read_result(path).arrays) == ["intensity"]


def test_a_result_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 20))
    sink.close()
    source = open_source(f"series:{path}")
    start = source.start()
    assert (start.unit, start.settings["normalise"]) == ("2th_deg", "minmax")
    first = next(iter(source))
    assert isinstance(first, Batch)
    assert first.ids.tolist() == list(range(100, 116))
    np.testing.assert_array_equal(first.arrays["intensity"], batch(0, 20).arrays["intensity"][:16])


def test_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    path.write_text("precious")
    with pytest.raises(PipelineError, match=r"result.nxs exists and is not overwritten.*--out"):
        open_sink("nexus", path=str(path))
    with pytest.raises(PipelineError, match=r"folder .*none not found"):
        open_sink("nexus", path=str(tmp_path / "none" / "result.nxs"))
    late = open_sink("nexus", path=str(tmp_path / "late.nxs"))
    (tmp_path / "late.nxs").write_text("precious")
    with pytest.raises(PipelineError, match=r"late.nxs cannot be written"):
        late.start(run_start())
    late.close()
    assert (tmp_path / "late.nxs").read_text() == path.read_text() == "precious"


def test_run_without_patterns_is_refused(tmp_path: Path) -> None:
    sink = open_sink("nexus", path=str(tmp_path / "result.nxs"))
    run = RunStart(run_id="r", source="s", items={"frame": ItemSpec.of((4, 4), np.int16)})
    with pytest.raises(PipelineError, match="carries no patterns"):
        sink.start(run)
    assert not (tmp_path / "result.nxs").exists()


@pytest.mark.parametrize("shape", [(2, 39), (2, 1), None])
def test_batch_that_was_not_announced(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    sink = open_sink("nexus", path=str(tmp_path / "result.nxs"))
    sink.start(run_start(classified=False))
    arrays = {} if shape is None else {"intensity": np.ones(shape, np.float32)}
    bad = Batch(np.arange(2), np.arange(2), None, arrays)
    with pytest.raises(PipelineError, match=r"result.nxs: items of shape \(40,\) in 'intensity'"):
        sink.batch(bad)
    sink.batch(batch(0, 2, classified=False))
    sink.close()
    assert len(read_result(tmp_path / "result.nxs").seq) == 2


def test_long_and_odd_errors_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.failures([Failure(0, 1, "classify", "ü" * 5000), Failure(1, 2, "s" * 100, "")])
    sink.close()
    first, second = read_result(path).failures
    assert first.error == "ü" * 256
    assert second.stage == "s" * 32


def test_many_batches_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    whole = batch(0, 300)
    for n in range(300):
        sink.batch(whole.select(slice(n, n + 1)))
    sink.close()
    np.testing.assert_array_equal(read_result(path).arrays["intensity"], whole.arrays["intensity"])


def test_not_a_result(tmp_path: Path) -> None:
    (tmp_path / "text.nxs").write_text("x")
    with h5py.File(tmp_path / "other.nxs", "w") as file:
        file["entry/x"] = 1
    for name in ("text.nxs", "other.nxs", "none.nxs"):
        with pytest.raises(PipelineError, match=f"{name} is not a readable phasewatch result"):
            read_result(tmp_path / name)


READER = """
import sys
from phasewatch.plugins.result import read_result
for line in sys.stdin:
    result = read_result(line.strip())
    total = float(result.arrays["intensity"].sum())
    print(len(result.seq), f"{total:.3f}", len(result.events), len(result.failures),
          result.stop is not None, flush=True)
"""


def test_readable_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    reader = subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdin is not None
    assert reader.stdout is not None

    def ask() -> list[str]:
        print(path, file=reader.stdin, flush=True)
        return reader.stdout.readline().split()

    with reader:
        sink.start(run_start())
        assert ask() == ["0", "0.000", "0", "0", "False"]
        total = 0.0
        for n in range(5):
            part = batch(10 * n, 10)
            sink.batch(part)
            total += float(part.arrays["intensity"].sum())
            seen = ask()
            assert seen[0] == str(10 * (n + 1))
            assert float(seen[1]) == pytest.approx(total, rel=1e-5)
        sink.event(EVENT)
        sink.failures([Failure(50, 150, "integrate", "bad")])
        assert ask()[2:] == ["1", "1", "False"]
        sink.stop(run_stop())
        assert ask()[2:] == ["1", "1", "True"]
        sink.close()
        assert ask()[2:] == ["1", "1", "True"]
        reader.stdin.close()
    assert reader.returncode == 0


def test_reader_that_stays_open(tmp_path: Path) -> None:
    """A reader that holds the file open does not hold up the writer, and sees what is new."""
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        seq = file["entry/frame/seq"]
        sink.batch(batch(0, 3))
        seq.refresh()
        assert len(seq) == 3
        sink.stop(run_stop())
        sink.close()
        seq.refresh()
        assert len(seq) == 3


def test_closed_before_the_end(tmp_path: Path) -> None:
    """A process told to end closes its sinks; the file then opens like any other."""
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 3))
    sink.event(EVENT)
    sink.failures([Failure(3, 103, "integrate", "bad")])
    sink.batch(batch(4, 2))
    sink.close()
    sink.close()
    with h5py.File(path, "r") as file:
        assert file["entry/frame/seq"][:].tolist() == [0, 1, 2, 4, 5]
        assert file["entry/provenance/stop"][()] == b""
        assert len(file["entry/track/event_log"]) == len(file["entry/loss/seq"]) == 1
    result = read_result(path)
    assert result.stop is None
    np.testing.assert_array_equal(
        result.arrays["intensity"][:3], batch(0, 3).arrays["intensity"], strict=True
    )


def test_ended_in_the_middle_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 3))
    append = nexus._append

    def interrupted(dataset: h5py.Dataset, values: np.ndarray) -> None:
        append(dataset, values)
        if dataset.name.endswith("label"):
            raise SystemExit(143)

    monkeypatch.setattr(nexus, "_append", interrupted)
    with pytest.raises(SystemExit):
        sink.batch(batch(3, 2))
    sink.close()
    with h5py.File(path, "r") as file:
        assert len(file["entry/frame/seq"]) == 3
    result = read_result(path)
    assert {len(a) for a in result.arrays.values()} == {3}


WRITER = """
import os, resource, sys, signal
import numpy as np
from phasewatch.pipeline.batch import Batch
from phasewatch.pipeline.documents import ItemSpec, RunStart
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.plugin import open_sink
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sink = open_sink("nexus", path=sys.argv[1])
sink.start(RunStart(run_id="r", source="s", items={"intensity": ItemSpec.of((4000,), np.float32)},
                    unit="2th_deg", constants={"axis": np.arange(4000.0)}))
try:
    for n in range(200):
        seq = np.arange(n, n + 1)
        sink.batch(Batch(seq, seq, None, {"intensity": np.full((1, 4000), n, np.float32)}))
        if n == 40 and not limit:
            print("killed", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
except PipelineError as error:
    print(n, error, flush=True)
try:
    sink.close()
except PipelineError as error:
    print("close", error, flush=True)
"""


def test_killed_writer_leaves_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path, "0"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "killed\n"
    result = read_result(path)
    assert result.seq.tolist() == list(range(41))
    assert result.arrays["intensity"][:, 7].tolist() == list(range(41))
    assert result.stop is None


def test_full_disk_is_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.nxs"
    sink = open_sink("nexus", path=str(path))
    sink.start(run_start())
    sink.batch(batch(0, 3))
    plenty = shutil.disk_usage(path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: plenty._replace(free=16 << 20))
    with pytest.raises(PipelineError, match=r"result.nxs: its disk is full \(16 MiB free"):
        sink.batch(batch(3, 3))
    sink.stop(run_stop())
    sink.close()
    with h5py.File(path) as file:
        assert len(file["entry/frame/seq"]) == 3
    assert read_result(path).stop == run_stop()


def test_write_error_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "result.nxs"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path, str(1 << 20)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    failed_at, _, text = lines[0].partition(" ")
    assert int(failed_at) > 10, done.stderr
    assert text == f"file {path} cannot be written: File too large"
    result = read_result(path)
    n = len(result.seq)
    assert n >= int(failed_at) - 1
    assert result.arrays["intensity"][:, 7].tolist() == list(range(n))
