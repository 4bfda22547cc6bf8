"""The chain, as processes, on real input: the four runs of docs/real-data.md."""

from pathlib import Path

import numpy as np
import pyFAI
import pytest

from phasewatch.models.commands import train
from phasewatch.pipeline.config import parse_config
from phasewatch.pipeline.documents import Loss, RunStop
from phasewatch.pipeline.plugin import open_source
from phasewatch.pipeline.processes.supervisor import supervise
from phasewatch.plugins.result import Result, read_result

RAW = {"baseline": {"method": "none"}, "normalise": "none"}


def run(folder: Path, uri: str, **tables: dict[str, object]) -> tuple[Result, RunStop]:
    source = {"uri": uri, **tables.pop("source", {})}
    sink = [{"type": "nexus", "path": "result.nxs"}]
    folder.mkdir(exist_ok=True)
    config = parse_config({"source": source, "sink": sink, **tables}, name="test", folder=folder)
    outcome = supervise(config)
    assert outcome.error is None
    assert outcome.stop is not None
    return read_result(folder / "result.nxs"), outcome.stop


def test_fifty_lambda_frames(data_dir: Path, tmp_path: Path) -> None:
    uri, poni = f"lambda-nexus:{data_dir}/lambda_p022", data_dir / "lambda_p022/L2.poni"
    result, stop = run(
        tmp_path,
        uri,
        calibration={"poni": str(poni)},
        reduce={"n_bins": 4038, "polarization": 0.99, **RAW},
        runtime={"reducers": 2},
    )
    assert stop.loss == Loss(expected=50, received=50, classified=50)
    assert result.ids.tolist() == list(range(1, 51))
    source = open_source(uri)
    start, ai = source.start(), pyFAI.load(str(poni))
    for i, item in enumerate(source):
        frame = item.arrays["frame"][0]
        if i % 7:
            continue
        reference = ai.integrate1d(
            frame,
            4038,
            unit="2th_deg",
            mask=start.constants["mask"] | (frame < 0) | (frame >= start.saturation),
            polarization_factor=0.99,
            method=("no", "csr", "cython"),
        )
        np.testing.assert_allclose(result.axis, reference.radial, rtol=1e-12)
        empty = reference.count == 0
        np.testing.assert_array_equal(np.isnan(result.arrays["intensity"][i]), empty)
        np.testing.assert_allclose(
            result.arrays["intensity"][i][~empty],
            reference.intensity[~empty],
            rtol=0,
            atol=1e-6 * reference.intensity.max(),
        )


def test_the_calibrant_has_its_peaks_where_they_belong(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "ceo2_pilatus"
    result, _ = run(
        tmp_path,
        f"images:{folder}/CeO2_Pilatus1M.tif",
        source={"flip": True},
        calibration={"poni": str(folder / "CeO2_Pilatus1M.poni")},
        reduce={"n_bins": 2000, "normalise": "none"},
    )
    wavelength_a = result.start.wavelength_m * 1e10
    axis, pattern = result.axis, np.nan_to_num(result.arrays["intensity"][0])
    for squares in (3, 4, 8, 11, 12, 16, 19, 20, 24, 27):  # h2 + k2 + l2 of fcc
        expected = 2 * np.degrees(np.arcsin(wavelength_a * np.sqrt(squares) / (2 * 5.4115)))
        near = np.abs(axis - expected) < 0.12
        weight = np.clip(pattern[near] - np.median(pattern[near]), 0, None)
        assert np.average(axis[near], weights=weight) == pytest.approx(expected, abs=0.01)


def test_ten_labels_find_the_melting(data_dir: Path, tmp_path: Path) -> None:
    series = data_dir / "series/nacl_crcl3_heating.npz"
    run(tmp_path / "patterns", f"series:{series}")
    names = ("crystalline", "partly-molten", "liquid")
    with np.load(series) as archive:
        truth, celsius = archive["labels_derived"], archive["order"]
    labelled = (0, 23, 46, 69, 79, 91, 104, 110, 121, 132)
    rows = "".join(f"{i},{names[truth[i]]}\n" for i in labelled)
    (tmp_path / "labels.csv").write_text("index,label\n" + rows)
    train(
        str(tmp_path / "patterns/result.nxs"),
        labels=tmp_path / "labels.csv",
        model="cnn",
        out=tmp_path / "model",
    )
    result, stop = run(
        tmp_path / "watch", f"series:{series}", classifier={"model": str(tmp_path / "model")}
    )
    assert stop.loss == Loss(expected=133, received=133, classified=133)
    assert np.mean(result.arrays["label"] == truth) > 0.97
    assert stop.confidence is not None
    assert stop.confidence > 0.97
    onset = next(e for e in stop.events if e.kind == "onset")
    assert 400 <= celsius[onset.seq] <= 415


def test_nine_xy_files(data_dir: Path, tmp_path: Path) -> None:
    result, stop = run(tmp_path, f"xy:{data_dir}/xy_map", reduce=RAW)
    assert stop.loss == Loss(expected=9, received=9, classified=9)
    assert result.start.unit == "2th_deg"
    assert result.axis[0] == pytest.approx(7.882808091e-03)
    assert result.arrays["intensity"][0][0] == pytest.approx(1.121889954e02)
