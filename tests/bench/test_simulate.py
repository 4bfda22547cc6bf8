"""The command `simulate` and the files it writes."""

import csv
import tomllib

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from phasewatch.bench.commands import simulate
from phasewatch.bench.simulate import write_run
from phasewatch.bench.twin.run import open_run
from phasewatch.bench.twin.tables import pick_labels
from phasewatch.pipeline import PipelineError


def command(*arguments):
    app = typer.Typer()
    app.command()(simulate)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def configuration(out):
    return tomllib.loads((out / "run.toml").read_text())


def test_frames_of_lambda2m(tmp_path):
    out = tmp_path / "run"
    result = command("fe-ramp", "--out", out, "--seed", 3, "--frames", 5, "--labels", 3)
    assert result.exit_code == 0
    assert str(out / "run.toml") in result.stdout
    run = open_run("fe-ramp", seed=3, frames=5)
    with h5py.File(out / "frames.h5") as file:
        data = file["entry/data/data"]
        assert data.chunks == (1, 1556, 1556)
        assert data.dtype == np.uint16
        assert np.array_equal(data[4], run.frame(4))
        assert file["entry/data/frame_number"][()].tolist() == [1, 2, 3, 4, 5]
        assert file["entry/data"].attrs["signal"] == "data"
    assert np.array_equal(np.load(out / "mask.npy"), run.mask)
    assert (out / "run.png").read_bytes().startswith(b"\x89PNG")
    truth = table(out / "truth.csv")
    assert [float(row["fraction"]) for row in truth] == pytest.approx(run.fraction, abs=1e-6)
    for row in truth:
        x = float(row["fraction"])
        assert row["label"] == ("before" if x < 0.01 else "after" if x > 0.99 else "during")
    for row in table(out / "labels.csv"):
        assert row["label"] == truth[int(row["index"])]["label"]
    config = configuration(out)
    assert config["source"] == {"uri": "hdf5:frames.h5#/entry/data/data"}
    assert config["reduce"]["range"] == list(run.experiment.two_theta_deg)
    assert config["calibration"]["saturation"] == 4095


def test_geometry_file_is_the_runs(tmp_path):
    import pyFAI

    out = tmp_path / "run"
    run = open_run("fe-ramp", seed=4, frames=3)
    write_run(run, out, with_data=False)
    geometry = pyFAI.load(str(out / "calibration.poni"))
    assert geometry.wavelength == run.experiment.wavelength_m
    found = geometry.center_array((1556, 1556), unit="2th_deg")
    assert np.abs(found - run.detector.two_theta_deg).max() < 1e-5


def test_without_frames_the_configuration_simulates_them(tmp_path):
    out = tmp_path / "run"
    assert command("fe-ramp", "--out", out, "--frames", 4, "--no-frames").exit_code == 0
    assert not (out / "frames.h5").exists()
    assert configuration(out)["source"] == {
        "uri": "simulate:fe-ramp",
        "seed": 0,
        "frames": 4,
        "layout": "lambda2m",
        "kind": "frames",
    }


def test_patterns(tmp_path):
    out = tmp_path / "run"
    assert command("fe-ramp", "--out", out, "--as", "patterns", "--frames", 6).exit_code == 0
    run = open_run("fe-ramp", seed=0, frames=6)
    with np.load(out / "series.npz") as series:
        assert series["x"] == pytest.approx(run.axis)
        assert series["intensity"].shape == (6, len(run.axis))
        assert series["order"] == pytest.approx(run.pressure_gpa)
        assert str(series["x_name"]) == "2th_deg"
        assert series["labels_derived"].tolist() == run.label.tolist()
    assert b"\r" not in (out / "labels.csv").read_bytes() + (out / "truth.csv").read_bytes()
    config = configuration(out)
    assert config["source"] == {"uri": "series:series.npz"}
    assert "calibration" not in config


def structure(path):
    found = {}

    def visit(name, item):
        attributes = {k: v for k, v in item.attrs.items() if k in ("NX_class", "units")}
        if isinstance(item, h5py.Dataset):
            layout = (item.shape[1:], item.dtype, item.chunks, item.maxshape, item.compression)
            found[name] = (*layout, item.compression_opts, attributes)
        else:
            found[name] = attributes

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_module_files_are_built_like_the_real_ones(tmp_path, data_dir):
    out = tmp_path / "run"
    run = open_run("fe-ramp", seed=1, frames=12, layout="p022")
    write_run(run, out)
    names = sorted(path.name for path in (out / "modules").iterdir())
    assert names == [f"fe-ramp_m{m}_part0000{p}.nxs" for m in (1, 2, 3) for p in (0, 1)]
    real_name = "testasapo1_1009_00002_m2_part00001.nxs"
    real = structure(data_dir / "lambda_p022" / real_name)
    ours = structure(out / "modules" / "fe-ramp_m2_part00001.nxs")
    assert ours == real
    with h5py.File(out / "modules" / "fe-ramp_m2_part00001.nxs") as file:
        detector = file["entry/instrument/detector"]
        assert detector["sequence_number"][()].tolist() == [11, 12]
        assert detector["data"].dtype == np.int16
        assert np.all(detector["data"][:, :, 772:782] == -1)
        assert np.all(detector["pixel_mask"][0][:, 772:782] & 1)
        assert detector["translation/distance"][()].tolist() == [-2.0, 660.0, 0.0]


def test_module_files_are_read_by_the_source(tmp_path):
    from phasewatch.pipeline.plugin import open_source

    out = tmp_path / "run"
    run = open_run("fe-ramp", seed=1, frames=3, layout="p022")
    write_run(run, out)
    source = open_source(f"lambda-nexus:{out / 'modules'}")
    try:
        start = source.start()
        assert start.items["frame"].shape == (1833, 1556)
        batches = [batch for batch in source if batch is not None]
    finally:
        source.close()
    frames = np.concatenate([batch.arrays["frame"] for batch in batches])
    assert len(frames) == 3
    assert np.array_equal(frames[2], run.frame(2))


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "old").touch()
    with pytest.raises(PipelineError, match="new or empty"):
        write_run(open_run("fe-ramp", frames=2), tmp_path)


def test_labels_are_spread_and_clear_of_the_transition():
    label = np.repeat([0, 1, 2], [100, 50, 90])
    picked = pick_labels(label, 12)
    assert np.bincount(label[picked]).tolist() == [4, 4, 4]
    assert picked[label[picked] == 0].max() < 90
    assert picked[label[picked] == 2].min() >= 159
    assert len(pick_labels(np.zeros(5, dtype=int), 12)) == 5
    assert set(label[pick_labels(label, 1)]) == {0}


def test_a_sheet_of_experiments(tmp_path):
    from matplotlib.image import imread

    sheet = tmp_path / "d1.png"
    result = command("D1", "--sheet", sheet, "--frames", 12)
    assert result.exit_code == 0
    assert str(sheet) in result.stdout
    assert np.std(imread(sheet)[..., :3]) > 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d1.png"]


def test_several_at_once_without_data(tmp_path, monkeypatch):
    monkeypatch.setattr("phasewatch.bench.twin.catalogue.THESIS", ("D1", "D7"))
    result = command("all", "--out", tmp_path, "--frames", 3, "--kind", "patterns", "--no-frames")
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"D1", "D7"}
    assert configuration(tmp_path / "D7")["source"]["uri"] == "simulate:D7"
    assert (tmp_path / "D7" / "peaks.npz").exists()


def test_nothing_to_write_is_said():
    with pytest.raises(PipelineError, match="--out FOLDER or --sheet PICTURE"):
        command("D1")
