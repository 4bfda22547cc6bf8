"""Axes, numbers and names of detectors with modules and pulses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.axes import check_axes, frame_of, ordered, told_by, write_frame
from phasewatch.plugins.sources.names import listed, matching
from phasewatch.plugins.sources.trains import pulse_id, time_of

P, M, Y, X = 3, 2, 4, 5
FILES = np.arange(P * M * Y * X, dtype=np.uint16).reshape(P, M, Y, X)
STACKED = FILES.reshape(P, M * Y, X)


def frames(*arrays: np.ndarray, axes: str) -> np.ndarray:
    views = [ordered(array, axes) for array in arrays]
    spec = frame_of(views)
    out = np.full((len(views[0]), *spec.shape), 999, spec.dtype)
    for pulse, frame in enumerate(out):
        write_frame(views, pulse, frame)
    return out


@given(st.permutations("pmyx"))
def test_any_order_gives_the_same_frames(letters: list[str]) -> None:
    array = FILES.transpose(["pmyx".index(c) for c in letters])
    np.testing.assert_array_equal(frames(array, axes="".join(letters)), STACKED)


def test_fewer_axes() -> None:
    np.testing.assert_array_equal(frames(FILES[0, 0], axes="yx"), FILES[:1, 0])
    np.testing.assert_array_equal(frames(FILES[0, 0].T, axes="xy"), FILES[:1, 0])
    np.testing.assert_array_equal(frames(FILES[:, 0], axes="pyx"), FILES[:, 0])
    np.testing.assert_array_equal(frames(FILES[0], axes="myx"), STACKED[:1])
    np.testing.assert_array_equal(frames(FILES, axes="p0yx"), FILES[:, 0])
    np.testing.assert_array_equal(frames(FILES[:, None], axes="p0myx"), STACKED)


def test_modules_that_are_sources_of_their_own_are_stacked_in_order() -> None:
    np.testing.assert_array_equal(frames(FILES[:, 0], FILES[:, 1], axes="pyx"), STACKED)
    with pytest.raises(MessageError, match="modules that differ"):
        frames(FILES[:, 0], FILES[:, 1, :, 1:], axes="pyx")
    with pytest.raises(MessageError, match="modules that differ"):
        frames(FILES[:, 0], FILES[:, 1].astype(np.int32), axes="pyx")


def test_numbers_come_in_native_order() -> None:
    assert frames(FILES.astype(">f4"), axes="pmyx").dtype == np.dtype("=f4")


def test_shape_alone_says_where_it_can() -> None:
    assert told_by((4, 5), None, "k") == "yx"
    assert told_by((1, 4, 5), None, "k") == "pyx"
    assert told_by((4, 5), "pyx", "k") == "yx"  # one pulse
    assert told_by((2, 4, 5), "pmyx", "k") == "myx"


@pytest.mark.parametrize(
    ("shape", "axes", "said"),
    [
        ((5,), None, "not an image"),
        ((), None, "not an image"),
        ((16, 128, 512), None, 'set axes = "pyx" or "myx"'),
        ((16, 128, 512, 64), None, 'set axes = "pmyx" or "mxyp"'),
        ((1, 2, 3, 4, 5, 6), None, "set axes"),
        ((4, 5), "pmyx", 'is not axes = "pmyx"'),
        ((4, 5, 6), "yx", 'is not axes = "yx"'),
    ],
)
def test_ambiguous_shape_says_what_to_set(shape: tuple[int, ...], axes: str, said: str) -> None:
    with pytest.raises(MessageError, match=said) as error:
        told_by(shape, axes, "image.data")
    assert "image.data" in str(error.value)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("axes", ["", "y", "yy", "pyxx", "ppyx", "mmyx", "yxq", "YX"])
def test_axes_that_make_no_frame(axes: str) -> None:
    with pytest.raises(PipelineError, match="one letter for each axis"):
        check_axes(axes)


def test_ids_are_unique_and_consecutive() -> None:
    ids = [pulse_id(train, pulse, 4) for train in (100, 101) for pulse in range(4)]
    assert ids == list(range(400, 408))
    assert pulse_id(10**10, 0, 1) == 10**10


@pytest.mark.parametrize(
    ("metadata", "t_acq"),
    [
        ({"timestamp.sec": "1600000000", "timestamp.frac": "5" + 17 * "0"}, 1600000000500000000),
        ({"timestamp.sec": 1600000000, "timestamp.frac": 5 * 10**17}, 1600000000500000000),
        ({"timestamp.sec": "1600000000", "timestamp.frac": "050" + 15 * "0"}, 1600000000050000000),
        ({"timestamp.tid": 5}, None),
        ({"timestamp": 1600000000.5}, None),
        ({"timestamp.sec": "1600000000"}, None),
        ({"timestamp.sec": "0", "timestamp.frac": "0"}, None),
        ({"timestamp.sec": "-5", "timestamp.frac": "0"}, None),
        ({"timestamp.sec": "9" * 5000, "timestamp.frac": "0"}, None),
        ({"timestamp.sec": 10**12, "timestamp.frac": 0}, None),
        ({"timestamp.sec": 1.5, "timestamp.frac": 0}, None),
        ({"timestamp.sec": "¹²", "timestamp.frac": "0"}, None),
    ],
)
def test_time_is_what_the_metadata_say_or_none(metadata: dict[str, object], t_acq: int) -> None:
    assert time_of(metadata) == t_acq


def test_names() -> None:
    names = [f"D/DET/{n}CH0:xtdf" for n in (10, 2, 0, 1)] + ["D/DET/CTRL", "E+/x"]
    assert matching("D/DET/*CH0:xtdf", names) == [f"D/DET/{n}CH0:xtdf" for n in (0, 1, 2, 10)]
    assert matching("D/DET/CTRL", names) == ["D/DET/CTRL"]
    assert matching("E+/x", names) == ["E+/x"]
    assert matching("D", names) == []
    assert listed([]) == "none"
    assert listed(map(str, range(30))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 18 more"
