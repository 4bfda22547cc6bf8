"""Conditions and truth of simulated runs."""

from dataclasses import replace

import numpy as np
import pytest

from phasewatch.bench.twin.catalogue import FE_RAMP
from phasewatch.bench.twin.experiment import (
    conditions,
    fractions,
    labels,
    pressures,
)
from phasewatch.bench.twin.run import open_run
from phasewatch.pipeline import PipelineError


def test_conditions_repeat_with_the_seed_and_differ_between_seeds():
    assert conditions(FE_RAMP, seed=3) == conditions(FE_RAMP, seed=3)
    onsets = {conditions(FE_RAMP, seed=s).onset_gpa for s in range(20)}
    assert len(onsets) == 20
    assert all(11.5 <= onset <= 14.0 for onset in onsets)


def test_fewer_frames_are_the_same_ramp():
    few, many = (conditions(FE_RAMP, seed=5, frames=n) for n in (10, 1000))
    assert few.onset_gpa == many.onset_gpa
    assert few.exposure_s * 10 == pytest.approx(many.exposure_s * 1000)
    assert pressures(few)[-1] == pytest.approx(pressures(many)[-1], abs=1.5)


@pytest.mark.parametrize("seed", range(10))
def test_every_run_has_all_three_classes_in_order(seed):
    run = open_run("fe-ramp", seed=seed)
    assert np.all(np.diff(run.pressure_gpa) > 0)
    assert np.all(np.diff(run.label) >= 0)
    assert set(run.label.tolist()) == {0, 1, 2}


def test_fraction_is_one_percent_at_the_onset_and_the_label_follows():
    run = conditions(FE_RAMP, seed=1)
    at = np.array([run.onset_gpa - 0.01, run.onset_gpa, run.onset_gpa + run.width_gpa])
    assert fractions(run, at)[1:] == pytest.approx([0.01, 0.99], abs=1e-9)
    x = np.array([0.0, 0.0099, 0.0101, 0.5, 0.9899, 0.9901, 1.0])
    assert labels(x).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_decompression_comes_back_later():
    run = replace(conditions(FE_RAMP, seed=1), hysteresis_gpa=5.0)
    up = np.linspace(5, 25, 201)
    x = fractions(run, np.concatenate((up, up[::-1])))
    forward, backward = x[:201], x[201:][::-1]
    assert np.all(backward >= forward - 1e-12)
    half = up[np.searchsorted(forward, 0.5)] - up[np.searchsorted(backward, 0.5)]
    assert half == pytest.approx(5.0, abs=0.11)
    turned = fractions(run, np.array([5.0, run.onset_gpa + run.width_gpa / 2, run.onset_gpa]))
    assert turned[2] == turned[1]  # between the curves nothing happens


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "fe-rump"}, "there are: fe-ramp, mgfeo-ramp, D1"),
        ({"name": "fe-ramp", "layout": "eiger"}, "there are: lambda2m, p022"),
        ({"name": "fe-ramp", "frames": 0}, "at least 1 frame"),
        ({"name": "fe-ramp", "seed": -1}, "negative"),
    ],
)
def test_what_cannot_be_simulated_is_said(options, words):
    with pytest.raises(PipelineError, match=words):
        open_run(options.pop("name"), **options)
