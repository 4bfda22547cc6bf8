"""Puts the modules of a LAMBDA detector where they sit on the assembled frame.

With ``t_m = (x, y)`` the translation of module m in pixels and ``(h_m, w_m)`` its shape, its corner
on the canvas is ``rint(t_m) - min_m rint(t_m)``; the canvas is as large as the modules reach, and
is **flipped vertically** at the end, because the geometry files of beamline P02.2 belong to the
flipped image. Source: NeXus ``NXtransformations`` in the detector's files, and Dioptas's reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasewatch.calibration.errors import CalibrationError

GAP = -1  # what the detector itself writes into the gap between two chips
VIRTUAL = np.uint32(1 << 31)  # NeXus pixel_mask: interpolated pixel at a chip's edge
MAX_PIXELS = 1 << 27  # a canvas above this is a misread translation, not a detector


@dataclass(frozen=True, slots=True)
class ModuleLayout:
    """Where each module sits.

    Attributes
    ----------
    origins
        (row, column) of each module's corner on the canvas, before the flip.
    shapes
        (height, width) of each module.
    canvas_shape
        (height, width) of the assembled frame.
    """

    origins: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, int], ...]
    canvas_shape: tuple[int, int]

    @classmethod
    def from_translations(
        cls, translations: ArrayLike, shapes: Sequence[tuple[int, int]]
    ) -> "ModuleLayout":
        """Lay out modules of `shapes` (m pairs) at `translations` (m, 2 or 3), pixels, x first.

        Raises
        ------
        CalibrationError
            The numbers are not finite, do not match the shapes, or let two modules overlap.
        """
        xy = np.asarray(translations, dtype=np.float64)
        if xy.ndim != 2 or xy.shape[1] not in (2, 3) or len(xy) != len(shapes) or not len(xy):
            raise CalibrationError(
                f"translation: shape {xy.shape} for {len(shapes)} modules, (m, 2 or 3) is expected"
            )
        if not (np.abs(xy) < MAX_PIXELS).all():
            raise CalibrationError("translation: all values must be finite, in pixels")
        corners = np.rint(xy[:, 1::-1]).astype(int)
        corners -= corners.min(axis=0)
        height, width = (corners + np.asarray(shapes)).max(axis=0).tolist()
        if not 0 < height * width <= MAX_PIXELS:
            raise CalibrationError(f"translation: gives a frame of {height}x{width} pixels")
        layout = cls(
            origins=tuple((row, column) for row, column in corners.tolist()),
            shapes=tuple((int(h), int(w)) for h, w in shapes),
            canvas_shape=(height, width),
        )
        covered = np.zeros(layout.canvas_shape, np.bool_)
        for place in layout._places(covered):
            if place.any():
                raise CalibrationError("translation: two modules overlap")
            place[...] = True
        return layout

    def assemble(
        self, modules: Sequence[NDArray[Any]], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the frame `canvas_shape`, -1 between the modules.

        Parameters
        ----------
        modules
            Counts of each module, in the order of the layout.
        out
            Array to write into; by default a new one of the smallest signed type that holds all
            counts of the modules' types and -1 (int16 for int16).

        Raises
        ------
        CalibrationError
            The number or shape of the modules, or `out`, does not fit.
        """
        self._check(modules, "module")
        dtype = np.result_type(np.int8, *(m.dtype for m in modules))
        if out is None:
            out = np.empty(self.canvas_shape, dtype)
        elif out.shape != self.canvas_shape or not np.can_cast(dtype, out.dtype):
            raise CalibrationError(
                f"out: {out.shape} {out.dtype}, but the frame is {self.canvas_shape} {dtype}"
            )
        out[...] = GAP
        for place, module in zip(self._places(out), modules, strict=True):
            place[...] = module
        return out

    def assemble_mask(
        self, pixel_masks: Sequence[NDArray[Any]], virtual: bool = False
    ) -> NDArray[np.bool_]:
        """Return the mask `canvas_shape`, True between the modules and where a bit is set.

        Parameters
        ----------
        pixel_masks
            NeXus ``pixel_mask`` bits of each module, uint32, in the order of the layout.
        virtual
            Whether bit 31 (interpolated pixels at the chips' edges) counts too.

        Raises
        ------
        CalibrationError
            The number or shape of the masks does not fit.
        """
        self._check(pixel_masks, "pixel_mask")
        mask = np.ones(self.canvas_shape, np.bool_)
        ignored = np.uint32(0) if virtual else VIRTUAL
        for place, bits in zip(self._places(mask), pixel_masks, strict=True):
            place[...] = (bits.astype(np.uint32) & ~ignored) != 0
        return mask

    def _places(self, canvas: NDArray[Any]) -> list[NDArray[Any]]:
        upright = canvas[::-1]
        return [
            upright[row : row + height, column : column + width]
            for (row, column), (height, width) in zip(self.origins, self.shapes, strict=True)
        ]

    def _check(self, images: Sequence[NDArray[Any]], name: str) -> None:
        shapes = [image.shape for image in images]
        if shapes != list(self.shapes):
            raise CalibrationError(f"{name}: shapes {shapes}, but the layout is {self.shapes}")
