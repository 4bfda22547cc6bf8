import io
import logging
import os
from dataclasses import replace

import numpy as np
import pytest

from phasewatch.calibration import Calibration, Integrator, plan_cache
from phasewatch.calibration.cake import Cake

SPLITS = ("no", "bbox")


@pytest.fixture
def calibration(write_poni):
    return Calibration.load(write_poni(), shape=(30, 40), saturation=4095)


@pytest.fixture
def plans(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASEWATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plans"


@pytest.fixture
def no_pyfai(monkeypatch):
    """Makes a plan that is made, not read, an error."""

    def forbid():
        def fail(*args):
            raise AssertionError("a plan was made")

        monkeypatch.setattr("phasewatch.calibration.reference.Reference", fail)
        monkeypatch.setattr("phasewatch.calibration.cake._prepare", fail)

    return forbid


FRAMES = np.random.default_rng(0).poisson(100, (3, 30, 40))


@pytest.mark.parametrize("split", SPLITS)
def test_a_kept_plan_gives_the_same_patterns(calibration, plans, no_pyfai, split):
    first = Integrator(calibration, n_bins=50, split=split)
    no_pyfai()

    again = Integrator(calibration, n_bins=50, split=split)

    assert len(list(plans.iterdir())) == 1
    np.testing.assert_array_equal(first(FRAMES), again(FRAMES))
    np.testing.assert_array_equal(first.axis, again.axis)
    np.testing.assert_array_equal(first.valid, again.valid)
    with pytest.raises(AssertionError, match="a plan was made"):
        Integrator(calibration, n_bins=51, split=split)
    with pytest.raises(AssertionError, match="a plan was made"):
        Integrator(replace(calibration, polarization=0.5), n_bins=50, split=split)


def test_a_kept_plan_in_two_dimensions_gives_the_same_maps(calibration, plans, no_pyfai):
    first = Cake(calibration, n_bins=20, n_azimuth=10, split="full")
    no_pyfai()

    again = Cake(calibration, n_bins=20, n_azimuth=10, split="full")

    np.testing.assert_array_equal(first(FRAMES), again(FRAMES))
    np.testing.assert_array_equal(first.azimuth, again.azimuth)


def _rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {**{name: file[name] for name in file.files}, **changes}
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x93NUMPY no plan"),
        lambda path: path.write_bytes(path.read_bytes()[:-50]),
        lambda path: path.write_bytes(
            path.read_bytes()[:5000] + b"\xff" * 8 + path.read_bytes()[5008:]
        ),
        lambda path: path.write_bytes(_npy(np.ones(3))),
        lambda path: path.write_bytes(_npy(np.array([{}], object))),
        lambda path: _rewrite(path, bins=np.array([{}], object)),
        lambda path: _rewrite(path, bins=None),
        lambda path: _rewrite(path, bins=np.full(1200, 60000, np.uint16)),
        lambda path: _rewrite(path, norm=np.ones(3)),
        lambda path: _rewrite(path, axis_0=np.ones(3)),
        lambda path: _rewrite(path, shares=np.ones(3, np.float32)),
    ],
)
def test_a_file_that_is_no_plan_is_made_anew(calibration, plans, caplog, split, spoil):
    expected = Integrator(calibration, n_bins=50, split=split)(FRAMES)
    (path,) = plans.iterdir()
    spoil(path)

    with caplog.at_level(logging.WARNING):
        integrator = Integrator(calibration, n_bins=50, split=split)

    np.testing.assert_array_equal(integrator(FRAMES), expected)
    assert f"plan {path} is not used" in caplog.text
    assert list(plans.iterdir()) == [path]
    caplog.clear()
    Integrator(calibration, n_bins=50, split=split)
    assert not caplog.text


def test_the_oldest_plans_go_first(calibration, plans, monkeypatch):
    for n_bins in (10, 11, 12):
        Integrator(calibration, n_bins=n_bins)
        (new,) = {p for p in plans.iterdir() if p.stat().st_mtime > 1e9}
        os.utime(new, (n_bins, n_bins))
    sizes = {int(p.stat().st_mtime): p.stat().st_size for p in plans.iterdir()}
    Integrator(calibration, n_bins=10)  # used: now the youngest
    monkeypatch.setattr(plan_cache, "MAX_BYTES", 3 * max(sizes.values()) + 100)

    Integrator(calibration, n_bins=13)

    assert sorted(int(p.stat().st_mtime) for p in plans.iterdir())[0] == 12
    assert len(list(plans.iterdir())) == 3


def test_a_folder_that_cannot_be_written_stops_nothing(calibration, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PHASEWATCH_CACHE", str(tmp_path / "file"))

    Integrator(calibration, n_bins=10)

    assert "is not kept" in caplog.text


def test_where_plans_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("PHASEWATCH_CACHE", "")
    assert plan_cache.folder() is None
    monkeypatch.delenv("PHASEWATCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plan_cache.folder() == tmp_path / "phasewatch" / "plans"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plan_cache.folder() == tmp_path / ".cache" / "phasewatch" / "plans"
