"""Which axis of a detector's array is what, and the frames that are in it.

The axes are told by a word, a letter for each: ``p`` pulses, ``m`` modules, ``y`` slow scan (rows
of a frame), ``x`` fast scan (columns), ``0``: of this one only the first entry is taken. A Karabo
bridge has ``mxyp`` where the online calibration sends it and ``pmyx`` where it comes from files.

A frame of several modules is these stacked, the first on top: `(modules * rows, columns)`. They are
not put where they are in space.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError

MAX_PULSES = 4096  # in a train
LETTERS = "pmyx0"
POSSIBLE = {3: ("pyx", "myx", "xyp", "0yx"), 4: ("pmyx", "mxyp", "p0yx"), 5: ("p0myx",)}


def check_axes(axes: str | None) -> None:
    """Check the word `axes`; None leaves it to the shape.

    Raises
    ------
    PipelineError
        It does not say rows and columns once, or says another axis twice.
    """
    if axes is None:
        return
    once = all(axes.count(letter) <= 1 for letter in "pm")
    if set(axes) - set(LETTERS) or not once or [axes.count(c) for c in "yx"] != [1, 1]:
        raise PipelineError(
            f"axes {axes!r}: one letter for each axis, y and x once, p and m at most once, 0 for "
            'an axis of which the first entry is taken; e.g. "pyx", "pmyx" (files), "mxyp" (online)'
        )


def told_by(shape: Sequence[int], axes: str | None, name: str) -> str:
    """Return the axes of an array of `shape`: `axes`, or what the shape alone allows.

    Raises
    ------
    MessageError
        It is no image, has other axes, or could be read in more than one way.
    """
    if axes is not None:
        one_pulse = axes.replace("p", "")  # a train of one pulse may come without that axis
        if len(shape) not in (len(axes), len(one_pulse)):
            raise MessageError(f'{name} has shape {tuple(shape)}, which is not axes = "{axes}"')
        return axes if len(shape) == len(axes) else one_pulse
    if len(shape) < 2:
        raise MessageError(f"{name} has shape {tuple(shape)}: not an image")
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3 and shape[0] == 1:
        return "pyx"
    words = " or ".join(f'"{word}"' for word in POSSIBLE.get(len(shape), ("pyx",)))
    raise MessageError(
        f"{name} has shape {tuple(shape)}, whose axes could be in any order: set axes = {words} "
        "(p pulses, m modules, y rows, x columns, 0 first entry only)"
    )


def ordered(array: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return `array`, whose axes are `axes`, as (pulses, modules, rows, columns): a view.

    Raises
    ------
    MessageError
        An axis of which the first entry is taken has none.
    """
    if any(letter == "0" and not n for letter, n in zip(axes, array.shape, strict=True)):
        raise MessageError(f"shape {array.shape}: an axis of which one entry is taken has none")
    taken = array[tuple(0 if letter == "0" else slice(None) for letter in axes)]
    left = axes.replace("0", "")
    for letter in "mp":
        if letter not in left:
            taken, left = taken[None], letter + left
    return taken.transpose([left.index(letter) for letter in "pmyx"])


def frame_of(views: Sequence[NDArray[Any]]) -> ItemSpec:
    """Return what a frame of `views` (pulses, modules, rows, columns), one on the other, is like.

    Raises
    ------
    MessageError
        They do not fit on one another.
    """
    kinds = {(view.shape[3], view.dtype) for view in views}
    if len(kinds) != 1:
        said = ", ".join(f"{dtype} {width} wide" for width, dtype in kinds)
        raise MessageError(f"modules that differ: {said}")
    [(width, dtype)] = kinds
    return _spec(sum(view.shape[1] * view.shape[2] for view in views), width, dtype)


@lru_cache(maxsize=16)  # 0.05 ms a train
def _spec(height: int, width: int, dtype: np.dtype[Any]) -> ItemSpec:
    return ItemSpec.of((height, width), dtype.newbyteorder("="))


def write_frame(views: Sequence[NDArray[Any]], pulse: int, out: NDArray[Any]) -> None:
    """Write the frame of `pulse` in `views` into `out` (height, width)."""
    top = 0
    for view in views:
        modules = view[pulse]
        rows = modules.shape[0] * modules.shape[1]
        np.copyto(out[top : top + rows].reshape(modules.shape), modules)
        top += rows
