import h5py
import hdf5plugin
import numpy as np
import pytest
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage
from PIL import Image

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.files import read_image

IMAGE = np.arange(12, dtype=np.int32).reshape(3, 4)


def write_npy(folder):
    np.save(folder / "image.npy", IMAGE)
    return folder / "image.npy"


def write_tiff(folder):
    TifImage(data=IMAGE).write(folder / "image.tif")
    return folder / "image.tif"


def write_tiff_without_suffix(folder):
    TifImage(data=IMAGE).write(folder / "image.tif")
    return (folder / "image.tif").rename(folder / "image")


def write_deflated_tiff_with_another_suffix(folder):
    path = folder / "image.mask"
    Image.fromarray(IMAGE).save(path, format="TIFF", compression="tiff_adobe_deflate")
    return path


def write_edf(folder):
    EdfImage(data=IMAGE).write(folder / "image.edf")
    return folder / "image.edf"


def write_hdf5(folder):
    with h5py.File(folder / "image.h5", "w") as file:
        data = IMAGE[np.newaxis]
        file.create_dataset("/entry/mask", data=data, **hdf5plugin.Bitshuffle(cname="lz4"))
    return f"{folder}/image.h5#/entry/mask"


WRITERS = [value for name, value in list(globals().items()) if name.startswith("write_")]


@pytest.mark.parametrize("write", WRITERS)
def test_an_image_comes_back_from_every_kind_of_file(tmp_path, write):
    image = read_image("mask", write(tmp_path))

    assert image.shape == IMAGE.shape
    np.testing.assert_array_equal(image, IMAGE)


def test_a_bilevel_tiff_is_read_as_zeros_and_ones(tmp_path):
    mask = np.eye(8, dtype=bool)
    Image.fromarray(mask).save(tmp_path / "beamstop", format="TIFF")

    np.testing.assert_array_equal(read_image("mask", tmp_path / "beamstop") != 0, mask)


def test_an_array_is_taken_as_it_is():
    assert read_image("dark", IMAGE) is IMAGE


def pickled(folder):
    np.save(folder / "p.npy", np.array([[{}]]), allow_pickle=True)
    return folder / "p.npy"


def truncated(folder):
    path = write_npy(folder)
    path.write_bytes(path.read_bytes()[:-5])
    return path


def text(folder):
    (folder / "x.tif").write_text("no image at all, just some text")
    return folder / "x.tif"


def wrong_dataset(folder):
    return write_hdf5(folder).replace("mask", "dark")


def group(folder):
    return write_hdf5(folder).replace("/mask", "")


def no_dataset(folder):
    return write_hdf5(folder).partition("#")[0]


def complex_numbers(folder):
    np.save(folder / "c.npy", np.ones((2, 2), complex))
    return folder / "c.npy"


def stack(folder):
    np.save(folder / "s.npy", np.ones((2, 3, 4)))
    return folder / "s.npy"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "none.tif", "there is no such file"),
        (pickled, "cannot be read: .*allow_pickle"),
        (truncated, "cannot be read"),
        (text, "cannot be read"),
        (wrong_dataset, "there is no dataset '/entry/dark' in it"),
        (group, "there is no dataset '/entry' in it"),
        (no_dataset, "say which dataset of it"),
        (complex_numbers, "real numbers are expected, not complex128"),
        (stack, r"one image \(height, width\) is expected"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_field_and_file(tmp_path, write, message):
    path = write(tmp_path)

    with pytest.raises(CalibrationError, match=message) as error:
        read_image("mask", path)

    assert str(error.value).startswith(f"mask '{path}'")
    assert "\n" not in str(error.value)
