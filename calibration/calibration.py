"""What turns counts on a detector into intensity over angle, as one immutable bundle.

Masks are boolean with True = invalid, images are (height, width), the wavelength is in m.

Symbols: ``D`` dark, counts to be subtracted; ``F`` flat field, the relative response of a pixel;
``s`` saturation, the lowest count that is not to be believed; ``P`` polarisation factor in [-1, 1],
1 = linear in the horizontal plane (None: no correction).
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration import masks
from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.files import ImageSource, describe, read_image
from phasewatch.calibration.masks import Mask
from phasewatch.calibration.poni import Poni, read_poni

Shape = tuple[int, int]
Image = NDArray[np.float64]

WAVELENGTH_TOLERANCE = 1e-4  # relative; a monochromator is not known better


@dataclass(frozen=True, eq=False)
class Calibration:
    """One validated, immutable calibration.

    Attributes
    ----------
    poni
        The geometry.
    wavelength
        m.
    shape
        (height, width), or None while it is not known.
    mask
        (height, width) bool, True = invalid; None only while `shape` is None.
    saturation
        Counts >= this are invalid; None where it is not known.
    dark, flat
        (height, width) float64 or None. Pixels where a flat is zero, negative or not finite are in
        `mask`.
    polarization
        Polarisation factor, or None for no correction.

    Raises
    ------
    CalibrationError
        The parts do not fit each other, are out of range or leave no valid pixel.
    """

    poni: Poni
    wavelength: float
    shape: Shape | None = None
    mask: Mask | None = None
    saturation: float | None = None
    dark: Image | None = None
    flat: Image | None = None
    polarization: float | None = None

    def __post_init__(self) -> None:
        _check_scalars(self)
        images = {"mask": self.mask, "dark": self.dark, "flat": self.flat}
        for name, image in images.items():
            if image is not None:
                _check_shape(name, image, self.shape)
        if self.shape is None:
            return
        mask = np.zeros(self.shape, np.bool_)
        if self.mask is not None:
            mask |= self.mask.astype(np.bool_)
        flat = self.flat
        if flat is not None:
            unusable = masks.of_flat("flat", flat)
            mask |= unusable
            flat = np.where(unusable, 1.0, flat)
        if self.dark is not None and not np.isfinite(self.dark).all():
            raise CalibrationError("dark: all values must be finite")
        if mask.all():
            raise CalibrationError("mask: no valid pixel is left")
        _freeze(self, mask=mask, dark=self.dark, flat=flat)

    @classmethod
    def load(
        cls,
        poni: str | PathLike[str],
        *,
        shape: Shape | None = None,
        mask: ImageSource | None = None,
        mask_inverted: bool | None = None,
        pixel_mask: ImageSource | None = None,
        pixel_mask_bits: int = masks.INVALID_BITS,
        dark: ImageSource | None = None,
        flat: ImageSource | None = None,
        saturation: float | None = None,
        polarization: float | None = None,
        wavelength: float | None = None,
    ) -> "Calibration":
        """Load and check a calibration.

        Parameters
        ----------
        poni
            PONI file.
        shape
            (height, width); needed only where neither the PONI nor an image says it, and even then
            the source may (`with_detector`).
        mask
            Image, nonzero = invalid; path or array. pyFAI's own mask of a named detector (module
            gaps) is added to it.
        mask_inverted
            True: in `mask` nonzero means valid. None: it does not, but a mask that marks more than
            half of the pixels is refused as probably inverted; say False if it is meant. Above
            95 % it is refused even then.
        pixel_mask
            Image of NeXus ``pixel_mask`` bits, uint32; path or array.
        pixel_mask_bits
            The bits that make a pixel invalid; by default all but 31 (virtual).
        dark
            Counts to subtract; path or array.
        flat
            Relative response; path or array. Pixels where it is zero, negative or not finite count
            as masked.
        saturation
            Counts >= this are invalid.
        polarization
            Polarisation factor in [-1, 1].
        wavelength
            m; needed where the PONI has none, and must agree with it to 1e-4 where it has.

        Raises
        ------
        CalibrationError
            One line that names the file and field.
        """
        geometry = read_poni(Path(poni))
        waves = _wavelength(str(poni), geometry.wavelength, wavelength)
        try:
            own, gaps = geometry.layout()
        except CalibrationError as error:
            raise CalibrationError(f"poni {str(poni)!r}: {error}") from error
        sources = {"mask": mask, "pixel_mask": pixel_mask, "dark": dark, "flat": flat}
        given = {name: source for name, source in sources.items() if source is not None}
        images = {name: read_image(name, source) for name, source in given.items()}
        if own is not None and shape is not None and own != tuple(shape):
            raise CalibrationError(
                f"shape: {_text(shape)}, but Detector {geometry.detector} of poni {str(poni)!r} "
                f"has {_text(own)}"
            )
        full = own or shape or next((image.shape for image in images.values()), None)
        known = None if full is None else (int(full[0]), int(full[1]))
        invalid = [] if gaps is None else [gaps]
        for name, image in images.items():
            where = describe(name, given[name])
            _check_shape(where, image, known)
            if name == "mask":
                invalid.append(masks.of_image(where, image, inverted=mask_inverted))
            elif name == "pixel_mask":
                invalid.append(masks.of_bits(where, image, bits=pixel_mask_bits))
            elif name == "flat":
                invalid.append(masks.of_flat(where, image))
            elif not np.isfinite(image).all():
                raise CalibrationError(f"{where}: all values must be finite")
        return cls(
            poni=geometry,
            wavelength=waves,
            shape=known,
            mask=np.logical_or.reduce(invalid) if invalid else None,
            saturation=saturation,
            dark=images.get("dark"),
            flat=images.get("flat"),
            polarization=polarization,
        )

    def with_detector(
        self,
        shape: Shape | None = None,
        mask: Mask | None = None,
        saturation: float | None = None,
    ) -> "Calibration":
        """Return a copy that also knows what a source says about its detector.

        Masks are OR-ed, `shape` must agree or be new, and a `saturation` of this calibration wins.

        Raises
        ------
        CalibrationError
            The shape differs, or no valid pixel is left.
        """
        if mask is not None:
            shape = shape or (mask.shape[0], mask.shape[-1])
            _check_shape("mask of the source", mask, shape)
        if shape is not None and self.shape is not None and tuple(shape) != self.shape:
            raise CalibrationError(
                f"shape: the source's frames are {_text(shape)}, the calibration (Detector "
                f"{self.poni.detector}) is for {_text(self.shape)}"
            )
        merged = self.mask
        if mask is not None:
            merged = mask.astype(np.bool_) if merged is None else merged | mask.astype(np.bool_)
        return replace(
            self,
            shape=self.shape or shape,
            mask=merged,
            saturation=saturation if self.saturation is None else self.saturation,
        )

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over everything that changes a pattern, whatever files it came from."""
        geometry = self.poni
        position = [geometry.distance, geometry.poni1, geometry.poni2]
        numbers = [*position, geometry.rot1, geometry.rot2, geometry.rot3, self.wavelength]
        config = {k: v for k, v in json.loads(geometry.config).items() if k != "max_shape"}
        header = {
            "geometry": [float(x).hex() for x in numbers],
            "detector": [geometry.detector.lower(), config],
            "shape": self.shape,
            "saturation": None if self.saturation is None else float(self.saturation).hex(),
            "polarization": None if self.polarization is None else float(self.polarization).hex(),
            "arrays": [image is not None for image in (self.mask, self.dark, self.flat)],
        }
        sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for image in (self.mask, self.dark, self.flat):
            if image is not None:
                sha.update(image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes())
        return sha.hexdigest()


def known_shape(calibration: Calibration) -> Shape:
    """Return the detector's shape.

    Raises
    ------
    CalibrationError
        The calibration does not know it.
    """
    if calibration.shape is None:
        raise CalibrationError("shape: the detector's is unknown: give it, or a mask")
    return calibration.shape


def _freeze(calibration: Calibration, **images: NDArray[Any] | None) -> None:
    """Replace each image by a copy of its own that cannot be written."""
    for name, image in images.items():
        if image is not None:
            dtype = np.bool_ if name == "mask" else np.float64
            copy: NDArray[Any] = np.array(image, dtype, order="C")
            copy.setflags(write=False)
            object.__setattr__(calibration, name, copy)


def _text(shape: tuple[int, ...] | None) -> str:
    return "unknown" if shape is None else "x".join(str(n) for n in shape)


def _check_shape(where: str, image: NDArray[Any], shape: Shape | None) -> None:
    if image.shape != shape:
        raise CalibrationError(
            f"{where}: shape {_text(image.shape)}, but the detector is {_text(shape)}"
        )


def _check_scalars(calibration: Calibration) -> None:
    wavelength, polarization = calibration.wavelength, calibration.polarization
    if not 0 < wavelength < 1e-8:
        raise CalibrationError(f"wavelength: must be in m (4.8e-11, say), not {wavelength:g}")
    if polarization is not None and not -1 <= polarization <= 1:
        raise CalibrationError(f"polarization: must be in [-1, 1], not {polarization:g}")
    saturation = calibration.saturation
    if saturation is not None and not 0 < saturation < math.inf:
        raise CalibrationError(f"saturation: must be positive and finite, not {saturation:g}")
    shape = calibration.shape
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise CalibrationError(f"shape: (height, width) is expected, not {shape}")


def _wavelength(path: str, of_poni: float | None, given: float | None) -> float:
    if of_poni is None and given is None:
        raise CalibrationError(f"poni {path!r}: Wavelength: is missing, and none is given")
    if of_poni is None or given is None:
        return given if of_poni is None else of_poni  # type: ignore[return-value]
    if not abs(given - of_poni) <= WAVELENGTH_TOLERANCE * abs(of_poni):
        raise CalibrationError(
            f"wavelength: {given:g} m disagrees with Wavelength {of_poni:g} m of poni {path!r}"
        )
    return of_poni
