import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from pyFAI.detectors import detector_factory

from phasewatch.calibration import Calibration, CalibrationError, Integrator

SHAPE = (6, 8)


@pytest.fixture
def poni(write_poni):
    return write_poni()


def some_mask(n=3):
    mask = np.zeros(SHAPE, bool)
    mask.flat[:n] = True
    return mask


def test_without_images_shape_and_mask_come_from_the_source(poni):
    calibration = Calibration.load(poni)
    assert calibration.shape is None
    assert calibration.mask is None

    known = calibration.with_detector(shape=SHAPE, saturation=100)

    assert known.shape == SHAPE
    assert not known.mask.any()
    assert known.saturation == 100


def test_masks_of_every_origin_are_merged(poni):
    bits = np.zeros((1, *SHAPE), np.uint32)
    bits[0, 0, 4] = 1 << 3
    bits[0, 0, 5] = 1 << 31  # virtual: counts, by default
    flat = np.ones(SHAPE)
    flat[1] = [np.nan, 0, -1, np.inf, 1, 1, 1, 1]
    of_source = np.zeros(SHAPE, bool)
    of_source[5, 7] = True

    calibration = Calibration.load(poni, mask=some_mask(3), pixel_mask=bits, flat=flat)
    merged = calibration.with_detector(mask=of_source).mask

    expected = some_mask(3)
    expected[0, 4] = expected[5, 7] = True
    expected[1, :4] = True
    np.testing.assert_array_equal(merged, expected)
    assert not calibration.mask[5, 7]
    assert np.isfinite(calibration.flat).all()
    all_bits = Calibration.load(poni, pixel_mask=bits, pixel_mask_bits=0xFFFFFFFF)
    assert all_bits.mask[0, 5]


def test_the_gaps_of_a_named_detector_are_masked(write_poni):
    for name in ("Pilatus1M", "Lambda2M"):
        calibration = Calibration.load(write_poni(Detector=name, Detector_config="{}"))

        detector = detector_factory(name)
        assert calibration.shape == detector.shape
        np.testing.assert_array_equal(calibration.mask, detector.mask != 0)


def test_an_inverted_mask_is_taken_when_it_is_said(poni):
    calibration = Calibration.load(poni, mask=~some_mask(3), mask_inverted=True)

    np.testing.assert_array_equal(calibration.mask, some_mask(3))


def test_a_mask_of_more_than_half_is_taken_only_when_it_is_meant(poni):
    mask = some_mask(30)  # 62.5 %
    with pytest.raises(CalibrationError, match=r"62\.5 %.*mask_inverted = true \(or false"):
        Calibration.load(poni, mask=mask)

    assert Calibration.load(poni, mask=mask, mask_inverted=False).mask.sum() == 30
    with pytest.raises(CalibrationError, match=r"mask_inverted = true$"):
        Calibration.load(poni, mask=some_mask(47), mask_inverted=False)
    with pytest.raises(CalibrationError, match=r"mask_inverted = false$"):
        Calibration.load(poni, mask=some_mask(1), mask_inverted=True)


def test_the_calibrations_own_saturation_wins(poni):
    calibration = Calibration.load(poni, saturation=50)

    assert calibration.with_detector(shape=SHAPE, saturation=4095).saturation == 50


def test_wavelength_is_of_the_poni_or_given_and_both_must_agree(write_poni):
    assert Calibration.load(write_poni(), wavelength=4.8361e-11).wavelength == 4.836e-11
    with pytest.raises(
        CalibrationError, match=r"wavelength: 4\.84e-11 m disagrees.*geometry\.poni"
    ):
        Calibration.load(write_poni(), wavelength=4.84e-11)
    silent = write_poni(Wavelength=None)
    assert Calibration.load(silent, wavelength=1e-10).wavelength == 1e-10
    with pytest.raises(CalibrationError, match=r"geometry\.poni': Wavelength: is missing"):
        Calibration.load(silent)


def shaped(*shape, value=1.0):
    return np.full(shape, value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.zeros((5, 8))}, "mask: shape 5x8, but the detector is 6x8"),
        ({"dark": np.zeros((6, 9))}, "dark: shape 6x9"),
        ({"flat": np.ones((8, 6))}, "flat: shape 8x6"),
        ({"pixel_mask": np.zeros((1, 1), np.uint32)}, "pixel_mask: shape 1x1"),
        ({"mask": shaped(*SHAPE)}, "mask: marks every pixel invalid"),
        ({"mask": ~some_mask(1)}, r"97\.9 % of the pixels invalid and is probably inverted"),
        ({"mask": shaped(*SHAPE, value=np.nan)}, "mask: all values must be finite"),
        ({"pixel_mask": shaped(*SHAPE)}, "pixel_mask: unsigned integers are expected"),
        ({"pixel_mask": np.full(SHAPE, 2, np.uint32)}, "mask: no valid pixel is left"),
        ({"dark": shaped(*SHAPE, value=np.nan)}, "dark: all values must be finite"),
        ({"flat": shaped(*SHAPE, value=np.nan)}, "flat: no pixel of it is positive and finite"),
        ({"flat": shaped(*SHAPE, value=0)}, "flat: no pixel of it is positive and finite"),
        ({"saturation": 0}, "saturation: must be positive"),
        ({"saturation": np.inf}, "saturation: must be positive and finite"),
        ({"polarization": 1.5}, r"polarization: must be in \[-1, 1\]"),
        ({"polarization": np.nan}, r"polarization: must be in \[-1, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(poni, options, message):
    with pytest.raises(CalibrationError, match=message):
        Calibration.load(poni, shape=SHAPE, **options)


def test_an_error_in_a_file_names_the_file(tmp_path, poni):
    np.save(tmp_path / "beamstop.npy", np.ones(SHAPE))

    with pytest.raises(CalibrationError, match=r"^mask '.*beamstop\.npy': marks every pixel"):
        Calibration.load(poni, mask=tmp_path / "beamstop.npy")


@pytest.mark.parametrize("wavelength", [0.4836, -1e-11, np.nan, 0.0])
def test_a_wavelength_that_is_not_in_metres_is_refused(write_poni, wavelength):
    with pytest.raises(CalibrationError, match="wavelength: must be in m"):
        Calibration.load(write_poni(Wavelength=None), wavelength=wavelength)


def test_images_of_different_shape_are_refused_without_a_known_shape(poni):
    with pytest.raises(CalibrationError, match="dark: shape 2x2, but the detector is 6x8"):
        Calibration.load(poni, mask=some_mask(), dark=np.zeros((2, 2)))


def test_a_shape_that_contradicts_the_detector_is_refused(write_poni):
    named = write_poni(Detector="Lambda2M", Detector_config="{}")
    with pytest.raises(
        CalibrationError, match=r"shape: 1833x1556, but Detector Lambda2M.*1556x1556"
    ):
        Calibration.load(named, shape=(1833, 1556))
    config = json.dumps({"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [6, 9]})
    with pytest.raises(CalibrationError, match=r"shape: 6x8, but Detector Detector .* has 6x9"):
        Calibration.load(write_poni(Detector_config=config), shape=SHAPE)


def test_a_source_that_contradicts_the_calibration_is_refused(poni):
    calibration = Calibration.load(poni, shape=SHAPE)
    with pytest.raises(CalibrationError, match=r"source's frames are 6x9, the calibration .* 6x8"):
        calibration.with_detector(shape=(6, 9))
    with pytest.raises(CalibrationError, match="mask of the source: shape 2x8"):
        calibration.with_detector(shape=SHAPE, mask=np.zeros((2, 8), bool))
    with pytest.raises(CalibrationError, match="no valid pixel is left"):
        calibration.with_detector(mask=np.ones(SHAPE, bool))


def test_it_cannot_be_changed(poni):
    dark = np.zeros(SHAPE)
    calibration = Calibration.load(poni, mask=some_mask(), dark=dark)
    dark[:] = 7

    assert calibration.dark.max() == 0
    for image in (calibration.mask, calibration.dark):
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        calibration.saturation = 3


def test_the_digest_is_of_the_content_and_not_of_the_files(tmp_path, poni):
    np.save(tmp_path / "mask.npy", some_mask().astype(np.int32) * 7)
    from_array = Calibration.load(poni, mask=some_mask(), shape=SHAPE)

    assert Calibration.load(poni, mask=tmp_path / "mask.npy").digest == from_array.digest
    merged = Calibration.load(poni).with_detector(mask=some_mask())
    assert merged.digest == from_array.digest
    # A result of today must name the same calibration on another machine and in later versions.
    assert from_array.digest == "365726b683fcbab487ebb7ddbcdf9b8df9d18cfcf96600996d9b8d3565292b3d"


def test_the_digest_changes_with_everything_that_changes_a_pattern(poni, write_poni):
    base = Calibration.load(poni, shape=SHAPE)
    digests = {base.digest}
    variants = [
        Calibration.load(poni, shape=SHAPE, mask=some_mask(1)),
        Calibration.load(poni, shape=SHAPE, dark=np.zeros(SHAPE)),
        Calibration.load(poni, shape=SHAPE, flat=np.ones(SHAPE)),
        Calibration.load(poni, shape=SHAPE, saturation=10),
        Calibration.load(poni, shape=SHAPE, polarization=0.0),
        Calibration.load(poni, shape=(8, 6)),
        replace(base, wavelength=5e-11),
    ]
    config = json.dumps({"pixel1": 1e-4, "pixel2": 2e-4})
    changes = [{key: "0.0123"} for key in ("Distance", "Poni1", "Poni2", "Rot1", "Rot2", "Rot3")]
    for change in [*changes, {"Detector_config": config}]:
        variants.append(Calibration.load(write_poni(**change), shape=SHAPE))
    digests |= {variant.digest for variant in variants}

    assert len(digests) == 1 + len(variants)


def test_importing_the_package_and_loading_a_name_is_cheap():
    code = """
import sys
import phasewatch.calibration
from phasewatch.calibration import CalibrationError
assert not {"pyFAI", "numba", "h5py", "fabio", "pybaselines"} & set(sys.modules), sys.modules.keys()
from phasewatch.calibration import Calibration
assert "pyFAI" not in sys.modules
from phasewatch.calibration import Integrator
assert "pyFAI" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_worker_that_finds_its_plan_on_disk_imports_little(poni, tmp_path):
    code = """
import sys
from phasewatch.calibration import Calibration, Integrator
from phasewatch.calibration.baseline import estimate
integrator = Integrator(Calibration.load(sys.argv[1], shape=(30, 20)), n_bins=10)
estimate([1.0, 2.0, 1.0], "asls")
print("pyFAI" in sys.modules, "pybaselines" in sys.modules, integrator.digest)
"""
    command = [sys.executable, "-c", code, str(poni)]
    environment = {**os.environ, "PHASEWATCH_CACHE": str(tmp_path)}
    first, second = (
        subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    pyfai, _, digest = first.stdout.split()
    assert pyfai == "True"
    assert second.stdout.split() == ["False", "False", digest]


def test_a_name_that_is_not_there_is_an_attribute_error():
    import phasewatch.calibration

    with pytest.raises(AttributeError, match="no attribute 'Calibrations'"):
        _ = phasewatch.calibration.Calibrations


def test_zero_counts_are_counts(write_poni):
    calibration = Calibration.load(write_poni(Detector="Lambda2M", Detector_config="{}"))
    frames = np.ones((2, 1556, 1556), np.uint16)
    frames[1, ::2] = 0
    for split in ("no", "bbox"):
        whole, half = Integrator(calibration, n_bins=50, split=split)(frames)
        np.testing.assert_allclose(half / whole, 0.5, atol=0.1)
