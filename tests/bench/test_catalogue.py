"""The ten experiments and the conditions of their runs."""

import numpy as np
import pytest

from phasewatch.bench.commands import simulate
from phasewatch.bench.twin.catalogue import EXPERIMENTS, THESIS
from phasewatch.bench.twin.crystal import cell
from phasewatch.bench.twin.experiment import conditions, distortion, fractions, labels, pressures
from phasewatch.bench.twin.pattern import Model
from phasewatch.bench.twin.run import open_run

SEEDS = range(8)


def history(name, seed, frames=None):
    run = conditions(EXPERIMENTS[name], seed=seed, frames=frames)
    pressure = pressures(run)
    return run, pressure, fractions(run, pressure)


def test_the_numbers_of_patterns_are_those_printed():
    assert len(THESIS) == 10
    frames = {name: EXPERIMENTS[name].frames for name in THESIS}
    assert frames["mgfeo-ramp"] == 349
    assert [frames[name] for name in ("D1", "D4", "D8", "D9")] == [60, 130, 222, 460]
    assert EXPERIMENTS["D1"].counts[1] == 20
    assert EXPERIMENTS["D4"].counts[1] == 65


@pytest.mark.parametrize("name", THESIS)
def test_runs_have_about_the_numbers_before_during_and_after(name):
    experiment = EXPERIMENTS[name]
    seen = set()
    for seed in SEEDS:
        run, pressure, x = history(name, seed)
        counts = np.bincount(labels(x), minlength=3)
        assert np.all(np.diff(pressure) > 0)
        assert np.all(np.diff(labels(x)) >= 0)
        assert counts.min() >= 1
        assert counts == pytest.approx(experiment.counts, abs=max(3, 0.08 * experiment.frames))
        seen.add((tuple(counts.tolist()), run.onset_gpa))
    assert len(seen) == len(SEEDS)


def test_the_boundary_of_mgfeo_is_where_models_find_that_of_the_real_set():
    for seed in SEEDS:
        run, pressure, x = history("mgfeo-ramp", seed)
        assert 170 <= int(np.argmax(x >= 0.5)) <= 189
        assert pressure[0] < 1.3
        assert pressure[-1] > 100
        assert run.frames * run.exposure_s == pytest.approx(50, rel=0.15)


def test_axis_of_mgfeo_is_that_of_the_published_patterns():
    axis = open_run("mgfeo-ramp").axis
    assert len(axis) == 4023
    assert axis[0] == pytest.approx(9.5603831, abs=1e-9)
    assert axis[-1] == pytest.approx(25.5496, abs=1e-4)


def test_iron_is_abrupt_and_oxide_continuous():
    for name in THESIS:
        during, frames = EXPERIMENTS[name].counts[1], EXPERIMENTS[name].frames
        if EXPERIMENTS[name].displacive:
            assert during > 0.1 * frames
        else:
            assert during < 0.06 * frames


def test_distortion_is_as_measured():
    # c/a = 2.529 at 53.3 GPa: Finkelstein et al., Am. Mineral. 102, 1709 (2017), table 2
    experiment = EXPERIMENTS["mgfeo-ramp"]
    for seed in SEEDS:
        run = conditions(experiment, seed=seed)
        e = distortion(experiment, run, experiment.high, 53.3)
        lattice = cell(experiment.high, 53.3, distortion=e)
        assert lattice.c / lattice.a == pytest.approx(2.529, abs=0.012)
        assert distortion(experiment, run, experiment.high, run.onset_gpa) == 0
        assert distortion(experiment, run, experiment.low, 53.3) == 0


def expected(name, seed, at):
    run = conditions(EXPERIMENTS[name], seed=seed)
    pressure = pressures(run)
    model = Model(EXPERIMENTS[name], run, np.linspace(9.9, 25.1, 1500))
    i = round(at * (run.frames - 1))
    return model, model.intensity(float(pressure[i]), float(fractions(run, pressure)[i]))


def test_patterns_repeat_and_differ_between_seeds():
    _, one = expected("D1", 3, 0.9)
    _, same = expected("D1", 3, 0.9)
    _, other = expected("D1", 4, 0.9)
    assert np.array_equal(one, same)
    assert np.abs(one / one.mean() - other / other.mean()).max() > 0.05


@pytest.mark.parametrize(("name", "phase"), [("D6", "Pt"), ("D7", "Ne"), ("D2", "Re")])
def test_extras_are_as_high_as_drawn(name, phase):
    model, _ = expected(name, 1, 0.0)
    start = model.conditions.start_gpa
    parts = [part for part in model.parts(0.0) if part.phase.name == phase]
    [k] = [k for k, extra in enumerate(model.experiment.extras) if extra.phase.name == phase]
    extra = sum(model.rings(part, start) for part in parts).max()
    sample = model.rings(model.parts(0.0)[0], start).max()
    assert extra / sample == pytest.approx(model.conditions.heights[k], rel=1e-6)
    assert {part.kind for part in parts} == {"other"}
    assert len({part.grains for part in parts}) == len(parts)


@pytest.mark.parametrize("layout", ["lambda2m", "p022"])
def test_both_layouts_cover_the_range_and_agree(layout):
    run = open_run("mgfeo-ramp", seed=5, frames=6, layout=layout)
    bins, _ = run._bins
    assert np.bincount(bins[bins >= 0], minlength=4023).min() > 40
    frame = run.frame(4)
    assert frame.shape == run.layout.shape
    pattern, mean = run.pattern(4), run.expected(4) * run._flux[4]
    # about 16 counts per pixel, 100 pixels per bin and more
    assert np.median(pattern / mean) == pytest.approx(1, abs=0.01)
    found = np.bincount(
        bins[bins >= 0], weights=frame.ravel()[bins >= 0].astype(float), minlength=4023
    )
    _, normalisation = run._bins
    assert np.median(found / normalisation / pattern) == pytest.approx(1, abs=0.01)


def test_help_names_them_all():
    for name in EXPERIMENTS:
        assert f"\n    {name} " in simulate.__doc__
        if name in THESIS and name != "mgfeo-ramp":
            line = next(s for s in simulate.__doc__.splitlines() if s.split()[:1] == [name])
            assert f"{EXPERIMENTS[name].frames} patterns" in line
