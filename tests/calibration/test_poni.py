import json

import numpy as np
import pyFAI
import pytest

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.poni import read_poni

OLD = {"poni_version": None, "Detector": None, "Detector_config": None}
PILATUS = {"Detector": "Pilatus1M"}
EMPTY = {"Detector_config": "{}"}
VERSIONS = {
    "1": {**OLD, "PixelSize1": "1e-4", "PixelSize2": "2e-4", "SplineFile": "None"},
    "1 with a detector": {**OLD, "Detector": "Pilatus1M"},
    "1 with a detector and pixel sizes": {
        **OLD,
        **PILATUS,
        "PixelSize1": "1.72e-4",
        "PixelSize2": "1.72e-4",
    },
    "2": {},
    "2 with a named detector": {**PILATUS, **EMPTY},
    "2 with the detector that LAMBDA files do not have": {"Detector": "Lambda2M", **EMPTY},
    "2.1": {
        "poni_version": "2.1",
        "Detector_config": json.dumps({"pixel1": 1e-4, "pixel2": 1e-4, "orientation": 2}),
    },
    "3": {"poni_version": "3", "Parallax": "False"},
    "not said": {"poni_version": None},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_geometry_that_pyfai_reads(write_poni, version):
    path = write_poni(**VERSIONS[version])
    ours, theirs = read_poni(path), pyFAI.load(str(path))

    for name in ("poni1", "poni2", "rot1", "rot2", "rot3", "wavelength"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.distance == theirs.dist
    detector = ours.make_detector()
    assert type(detector) is type(theirs.detector)
    assert (detector.pixel1, detector.pixel2) == (theirs.pixel1, theirs.pixel2)
    assert detector.shape == theirs.detector.shape
    assert detector.orientation == theirs.detector.orientation
    assert_same_layout(ours, theirs.detector)


def assert_same_layout(ours, detector):
    shape, mask = ours.layout()
    assert shape == (detector.shape or detector.max_shape)
    theirs = None if shape is None else detector.mask
    assert (mask is None) == (theirs is None)
    if mask is not None:
        np.testing.assert_array_equal(mask, theirs != 0)


@pytest.mark.parametrize(
    "more", [{}, {"max_shape": None}, {"max_shape": [30, 20]}, {"orientation": 4, "pixel1": 1}]
)
def test_the_layout_of_a_plain_detector_is_pyfais(write_poni, more):
    config = {"pixel1": 1e-4, "pixel2": 2e-4, **more}
    path = write_poni(Detector_config=json.dumps(config))

    assert_same_layout(read_poni(path), pyFAI.load(str(path)).detector)


def test_the_last_calibration_appended_to_a_file_counts(write_poni):
    path = write_poni()
    path.write_text(path.read_text() + "# Calibration done later\nDistance: 0.25\n")

    assert read_poni(path).distance == 0.25


def test_versions_1_and_2_of_one_geometry_are_equal(write_poni):
    old = read_poni(write_poni(**OLD, PixelSize1="1e-4", PixelSize2="1e-4"))

    assert old == read_poni(write_poni())


def test_a_file_without_wavelength_says_so_by_none(write_poni):
    assert read_poni(write_poni(Wavelength=None)).wavelength is None
    assert read_poni(write_poni(Wavelength="None")).wavelength is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poni_version": "4"}, "poni_version: 4 is unknown; known: 1, 2, 2.1, 3"),
        ({"poni_version": "two"}, "Poni_version: 'two' is not a number"),
        ({"poni_version": "3", "Parallax": "True"}, "Parallax"),
        ({"Distance": None}, "Distance: is missing"),
        ({"Poni1": None}, "Poni1: is missing"),
        ({"Rot3": None}, "Rot3: is missing"),
        ({"Rot1": "nan"}, "Rot1: must be finite"),
        ({"Distance": "inf"}, "Distance: must be finite"),
        ({"Distance": "-0.1"}, "Distance: must be positive"),
        ({"Wavelength": "blue"}, "Wavelength: 'blue' is not a number"),
        ({"Detector": None}, "Detector: is missing"),
        ({"Detector_config": None}, "Detector_config: is missing"),
        ({"Detector_config": "{1"}, "Detector_config: is not JSON"),
        ({"Detector_config": "[1]"}, "Detector_config: a JSON object is expected"),
        ({**OLD, "PixelSize1": "1e-4"}, "Pixelsize2: is missing"),
        (
            {**OLD, "PixelSize1": "1e-4", "PixelSize2": "1e-4", "SplineFile": "a.spline"},
            "SplineFile",
        ),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_file_and_field(write_poni, changes, message):
    with pytest.raises(CalibrationError) as error:
        read_poni(write_poni(**changes))

    assert "geometry.poni" in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("detector", "config", "message"),
    [
        ("Pilatus99Z", {}, "pyFAI knows no detector 'Pilatus99Z'"),
        ("Detector", {"pixel1": 1e-4}, "pixel2 must be a size in m, not None"),
        ("Detector", {"pixel1": -1e-4, "pixel2": 1e-4}, "pixel1 must be a size in m"),
        ("Detector", {"pixel1": "wide", "pixel2": 1e-4}, "Detector_config: Detector"),
        ("Detector", {"pixel1": 10**400, "pixel2": 1e-4}, "Detector_config: Detector"),
    ],
)
def test_a_detector_that_pyfai_cannot_make_is_refused(write_poni, detector, config, message):
    poni = read_poni(write_poni(Detector=detector, Detector_config=json.dumps(config)))

    for make in (poni.make_detector, poni.layout):
        with pytest.raises(CalibrationError, match=message):
            make()


@pytest.mark.parametrize(
    "shape", [[30], [30, 20, 1], [30.7, 20], [None, 20], "ab", [0, 20], [True, 20]]
)
@pytest.mark.parametrize("detector", ["Detector", "Pilatus1M"])
def test_what_is_no_shape_is_refused(write_poni, shape, detector):
    config = {"max_shape": shape} | (
        {"pixel1": 1e-4, "pixel2": 1e-4} if detector == "Detector" else {}
    )
    poni = read_poni(write_poni(Detector=detector, Detector_config=json.dumps(config)))
    with pytest.raises(CalibrationError, match="max_shape"):
        poni.layout()


@pytest.mark.parametrize(
    "content", [b"", b"hello: world\n", bytes(range(256)), b"Distance: 1\n" + b" " * (1 << 20)]
)
def test_what_is_not_a_poni_file_is_refused(tmp_path, content):
    path = tmp_path / "not.poni"
    path.write_bytes(content)

    with pytest.raises(CalibrationError, match=r"not\.poni"):
        read_poni(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.poni", tmp_path):
        with pytest.raises(CalibrationError, match="cannot be read"):
            read_poni(path)


def test_the_detector_of_a_poni_never_opens_a_file(tmp_path, write_poni):
    trap = tmp_path / "detector.h5"
    np.save(trap, np.zeros(3))

    with pytest.raises(CalibrationError, match="pyFAI knows no detector"):
        read_poni(write_poni(Detector=str(trap))).make_detector()
