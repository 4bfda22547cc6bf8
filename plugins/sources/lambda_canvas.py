"""Where the modules of a LAMBDA detector go in memory that holds something else already."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from phasewatch.calibration.lambda_modules import GAP, ModuleLayout

Rectangle = tuple[slice, slice]  # rows, columns


class Canvas:
    """Writes frames of `layout`, each pixel once; a frame (height, width) is flipped vertically.

    `tiles` are the modules before that: (top, left, height, width) in pixels.
    """

    def __init__(self, layout: ModuleLayout) -> None:
        self.tiles = tuple(
            (int(top), int(left), int(height), int(width))
            for (top, left), (height, width) in zip(layout.origins, layout.shapes, strict=True)
        )
        self._modules = [
            (slice(top, top + height), slice(left, left + width))
            for top, left, height, width in self.tiles
        ]
        self._gaps = list(_uncovered(layout))

    def fill_gaps(self, frame: NDArray[Any]) -> None:
        """Write -1 between the modules."""
        upright = frame[::-1]
        for gap in self._gaps:
            upright[gap] = GAP

    def place(self, frame: NDArray[Any], module: int, counts: NDArray[Any]) -> None:
        """Write the `counts` of the module with index `module`."""
        frame[::-1][self._modules[module]] = counts


def _uncovered(layout: ModuleLayout) -> Iterator[Rectangle]:
    """Yield the rectangles that no module covers, band by band of rows with the same modules."""
    height, width = layout.canvas_shape
    modules = list(zip(layout.origins, layout.shapes, strict=True))
    edges = {0, height, *(y for (row, _), (h, _) in modules for y in (row, row + h))}
    for top, bottom in pairwise(sorted(edges)):
        free = 0
        across = [(column, w) for (row, column), (h, w) in modules if row <= top < row + h]
        for column, w in sorted(across):
            if column > free:
                yield slice(top, bottom), slice(free, column)
            free = column + w
        if free < width:
            yield slice(top, bottom), slice(free, width)
