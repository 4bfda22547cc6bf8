"""Where the peaks of a simulated run are said to be."""

import numpy as np
import pytest

from phasewatch.bench.truth import read_peaks
from phasewatch.bench.twin.crystal import cell
from phasewatch.bench.twin.pattern import Lines
from phasewatch.bench.twin.peaks import on_lines, peaks, write_peaks
from phasewatch.bench.twin.phases import ALPHA_IRON
from phasewatch.bench.twin.run import open_run
from phasewatch.pipeline import PipelineError


def test_points_within_half_a_width_are_on_a_line():
    axis = np.arange(10, 12, 0.01)
    shape = Lines(np.array([10.5, 10.55, 20.0]), np.array([0.1, 0.1, 0.1]), np.ones(3))
    on = axis[on_lines(axis, shape)]
    assert on[[0, -1]] == pytest.approx([10.45, 10.6], abs=0.011)
    assert np.all(np.diff(on) < 0.011)


def test_peaks_read_back_are_where_the_lines_are(tmp_path):
    run = open_run("fe-ramp", seed=2, frames=8)
    write_peaks(tmp_path / "peaks.npz", run)
    axis, mask = read_peaks(tmp_path / "peaks.npz")
    assert axis == pytest.approx(run.axis)
    assert mask.shape == (8, len(axis))
    assert mask.dtype == bool
    d_110 = cell(ALPHA_IRON, run.pressure_gpa[0]).a / np.sqrt(2)
    line = np.degrees(2 * np.arcsin(run.experiment.wavelength_m * 1e10 / (2 * d_110)))
    at = np.argmin(np.abs(axis - line))
    assert mask[0, at - 3 : at + 4].all()
    assert not mask[0, at + 60]
    assert 0.01 < mask.mean() < 0.3


def test_a_peak_of_the_other_phase_counts_only_while_it_is_there():
    run = open_run("fe-ramp", seed=2, frames=40)
    assert peaks(run, 0)["low"].any()
    assert not peaks(run, 0)["high"].any()
    assert not peaks(run, 39)["low"].any()
    middle = int(np.argmin(np.abs(run.fraction - 0.5)))
    assert peaks(run, middle)["low"].any()
    assert peaks(run, middle)["high"].any()


def test_what_is_no_table_of_peaks_is_said(tmp_path):
    (tmp_path / "peaks.npz").write_text("no")
    with pytest.raises(PipelineError, match=r"peaks.npz: arrays axis, low, high, other"):
        read_peaks(tmp_path / "peaks.npz")
    np.savez(
        tmp_path / "short.npz",
        axis=np.arange(9),
        **dict.fromkeys(("low", "high", "other"), np.zeros((2, 1), np.uint8)),
    )
    with pytest.raises(PipelineError, match="do not fit"):
        read_peaks(tmp_path / "short.npz")
