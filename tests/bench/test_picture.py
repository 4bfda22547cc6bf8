"""The picture of a run."""

import json

import h5py
import numpy as np
import pytest
from matplotlib.image import imread

from phasewatch.bench.picture import _rows, draw, draw_truth
from phasewatch.bench.twin.run import open_run
from phasewatch.bench.twin.tables import write_truth
from phasewatch.pipeline import PipelineError

CLASSES = ["before", "during", "after"]


def write_result(path, run, *, classified=True, missing=()):
    seq = np.array([i for i in range(run.conditions.frames) if i not in missing])
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry["frame/seq"] = seq
        entry["patterns/axis"] = run.axis
        entry["patterns/axis"].attrs["unit"] = "2th_deg"
        entry["patterns/intensity"] = np.stack([run.expected(i) for i in seq]).astype(np.float32)
        if classified:
            one_hot = np.eye(3)[run.label[seq]]
            entry["classification/probability"] = 0.8 * one_hot + 0.2 / 3
            entry["classification/posterior"] = one_hot
            entry["classification"].attrs["classes"] = json.dumps(CLASSES)
            zones = [{"boundary": 0, "after": 9, "before": 14}]
            events = [{"kind": "onset", "seq": 12, "id": 13, "posterior": 0.9}]
            entry["track/zones"] = json.dumps(zones)
            entry["track/events"] = json.dumps(events)
            entry["track/confidence"] = 0.9


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


def test_missing_items_stay_empty_rows():
    image = _rows(np.array([0, 1, 3]), np.ones((3, 2)))
    assert np.isnan(image[2]).all()
    assert np.isfinite(image[[0, 1, 3]]).all()


def test_long_runs_are_averaged_in_groups():
    seq = np.arange(4000)
    image = _rows(seq, np.repeat(seq[:, None].astype(float), 2, axis=1))
    assert len(image) <= 1500
    assert image[0, 0] == pytest.approx(1.0)  # of 0, 1, 2


def test_what_is_no_result_is_said(tmp_path):
    (tmp_path / "x.nxs").write_text("no")
    with pytest.raises(PipelineError, match="not a result file"):
        draw(tmp_path / "x.nxs", tmp_path / "x.png")
