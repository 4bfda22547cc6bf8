"""The picture of one frame over azimuth and radius."""

import numpy as np
import pytest
from matplotlib.image import imread

from phasewatch.bench.cake import seen_around
from phasewatch.pipeline.cli import main

PONI = """poni_version: 2
Detector: Detector
Detector_config: {"pixel1": 1e-3, "pixel2": 1e-3}
Distance: 0.1
Poni1: 0.015
Poni2: 0.02
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 4.836e-11
"""
CONFIG = """[source]
uri = "images:*.edf"
[calibration]
poni = "a.poni"
[reduce]
n_bins = 30
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    fabio = pytest.importorskip("fabio")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.poni").write_text(PONI)
    (tmp_path / "run.toml").write_text(CONFIG)
    rng = np.random.default_rng(0)
    for i in range(3):
        frame = rng.poisson(5 + 50 * i, (30, 40)).astype(np.uint16)
        fabio.edfimage.EdfImage(data=frame).write(str(tmp_path / f"f{i}.edf"))
    return tmp_path / "run.toml"


def test_each_frame_has_its_picture(config, capsys):
    pictures = []
    for frame in (0, 2):
        out = config.parent / f"cake{frame}.png"
        assert main(["cake", str(config), "--frame", str(frame), "--out", str(out)]) == 0
        pictures.append(imread(out))
    assert "cake2.png" in capsys.readouterr().out
    assert pictures[0].shape == pictures[1].shape
    assert pictures[0][..., :3].std() > 0.1
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize(
    ("old", "new", "arguments", "said"),
    [
        ("", "", ["--frame", "3"], "--frame 3: source images:*.edf has 3 frames, counted from 0"),
        ("", "", ["--out", "no/cake.png"], "--out no/cake.png: No such file"),
        ("n_bins = 30", "", [], "[reduce] n_bins is missing"),
        ('images:*.edf"', 'series:s.npz"\nunit = "2th_deg"', [], "it gives intensity, not frames"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(config, capsys, old, new, arguments, said):
    np.savez(config.parent / "s.npz", x=np.arange(9.0), intensity=np.ones((2, 9)))
    config.write_text(CONFIG.replace(old, new))
    assert main(["cake", str(config), *arguments]) != 0
    assert said in capsys.readouterr().err


def test_the_azimuth_is_joined_at_180_degrees_and_cut_where_nothing_is():
    azimuth = np.arange(-175.0, 180, 10)
    image = np.full((36, 2), np.nan)
    image[:3] = [[1], [2], [3]]
    image[-4:] = [[7], [8], [9], [0]]

    around, rows = seen_around(azimuth, image)

    np.testing.assert_array_equal(around, np.arange(145, 206, 10))
    np.testing.assert_array_equal(rows[:, 0], [7, 8, 9, 0, 1, 2, 3])
    around, rows = seen_around(azimuth, np.roll(image, 10, axis=0))
    np.testing.assert_array_equal(rows[:, 0], [7, 8, 9, 0, 1, 2, 3])
    np.testing.assert_array_equal(around, azimuth[6:13])
    around, rows = seen_around(azimuth[:7], image[:7])
    np.testing.assert_array_equal(around, azimuth[:3])
    whole = np.ones((36, 2))
    np.testing.assert_array_equal(seen_around(azimuth, whole)[1], whole)
