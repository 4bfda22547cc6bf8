"""The picture of a run."""

import numpy as np
import pytest
from matplotlib.image import imread

from phasewatch.bench.panels import rows_of
from phasewatch.bench.picture import draw, draw_truth
from phasewatch.bench.twin.run import open_run
from phasewatch.bench.twin.tables import write_truth
from phasewatch.pipeline import Batch, Event, PipelineError, RunStart, RunStop
from phasewatch.pipeline.documents import ItemSpec, Loss, Zone
from phasewatch.plugins.sinks.nexus import open_sink

CLASSES = ("before", "during", "after")


def write_result(path, run, *, classified=True, missing=()):
    seq = np.array([i for i in range(run.conditions.frames) if i not in missing])
    one_hot = np.eye(3)[run.label[seq]]
    arrays = {"intensity": np.stack([run.expected(i) for i in seq]).astype(np.float32)}
    if classified:
        arrays |= {"probability": (0.8 * one_hot + 0.2 / 3).astype(np.float32)}
        arrays |= {"posterior": one_hot, "label": run.label[seq].astype(np.int32)}
        arrays |= {"phase": run.label[seq].astype(np.int32), "novelty": np.zeros(len(seq), "f4")}
    start = RunStart(
        run_id="r",
        source="simulate:fe-ramp",
        items={name: ItemSpec.of(a.shape[1:], a.dtype) for name, a in arrays.items()},
        unit="2th_deg",
        classes=CLASSES if classified else (),
        constants={"axis": run.axis},
    )
    onset = Event(kind="onset", seq=12, id=13, t_acq=None, phase=1, posterior=0.9)
    stop = RunStop(
        run_id="r",
        reason="end of run",
        loss=Loss(expected=len(seq), received=len(seq), classified=len(seq)),
        confidence=0.9 if classified else None,
        zones=(Zone(boundary=0, after=9, before=14, n=4, passed=True),) if classified else (),
        events=(onset,) if classified else (),
    )
    sink = open_sink(path=str(path))
    sink.start(start)
    sink.batch(Batch(seq, seq + 1, None, arrays))
    if classified:
        sink.event(onset)
    sink.stop(stop)
    sink.close()


@pytest.fixture(scope="module")
def run():
    return open_run("fe-ramp", seed=1, frames=30)


def test_draws_a_classified_run_with_its_truth(tmp_path, run):
    write_result(tmp_path / "r.nxs", run, missing=(3, 17))
    write_truth(tmp_path / "truth.csv", run)
    draw(tmp_path / "r.nxs", tmp_path / "with.png", truth_csv=tmp_path / "truth.csv")
    draw(tmp_path / "r.nxs", tmp_path / "without.png")
    wide, narrow = imread(tmp_path / "with.png"), imread(tmp_path / "without.png")
    assert wide.shape[1] > narrow.shape[1] > 800
    assert np.std(narrow[..., :3]) > 0.1  # not a blank page


def test_draws_a_run_without_classifier_and_the_truth_of_a_simulated_one(tmp_path, run):
    write_result(tmp_path / "r.nxs", run, classified=False)
    draw(tmp_path / "r.nxs", tmp_path / "patterns.png")
    draw_truth(run, tmp_path / "truth.png")
    assert imread(tmp_path / "patterns.png").shape[2] == 4
    assert np.std(imread(tmp_path / "truth.png")[..., :3]) > 0.1


def test_missing_items_stay_emptyrows_of():
    image = rows_of(np.array([0, 1, 3]), np.ones((3, 2)))
    assert np.isnan(image[2]).all()
    assert np.isfinite(image[[0, 1, 3]]).all()


def test_long_runs_are_averaged_in_groups():
    seq = np.arange(4000)
    image = rows_of(seq, np.repeat(seq[:, None].astype(float), 2, axis=1))
    assert len(image) <= 1500
    assert image[0, 0] == pytest.approx(1.0)  # of 0, 1, 2


def test_what_is_no_result_is_said(tmp_path):
    (tmp_path / "x.nxs").write_text("no")
    with pytest.raises(PipelineError, match="not a readable phasewatch result"):
        draw(tmp_path / "x.nxs", tmp_path / "x.png")
