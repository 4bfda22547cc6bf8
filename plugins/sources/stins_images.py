"""The images of a STINS stream: of one detector, or of modules that are laid out on one frame.

Modules go where those in files go (`ModuleLayout`): -1 between them, the frame flipped vertically.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.lambda_modules import ModuleLayout
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.blobs import Blob, Codec, dtype_of
from phasewatch.plugins.sources.headers import Count, Header, Text, checked, read
from phasewatch.plugins.sources.lambda_canvas import Canvas

_CODECS: dict[str, Codec] = {"none": "raw", "bslz4": "bslz4"}
_Shape = Annotated[list[Count], Field(min_length=2, max_length=4)]


class _Image(Header):
    shape: _Shape
    chunks: _Shape | None = None  # of a module, where `shape` is of all of them
    type: Text
    compression: Text = "none"


class _Place(Header):
    x: float
    y: float
    rotation: float = 0.0
    full_shape: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None


class Modules:
    """Puts images of modules together, which sit at `places`; `names` are for errors.

    Attributes
    ----------
    mask
        (height, width) bool, true between the modules; known with the first frame.
    settings
        What `of` makes the same modules of.
    """

    mask: NDArray[np.bool_]

    def __init__(self, places: Sequence[_Place], names: Sequence[str]) -> None:
        for name, place in zip(names, places, strict=True):
            if place.rotation % 360:
                raise MessageError(
                    f"{name}: rotation {place.rotation:g}: only modules that are not rotated are "
                    "taken, as no public source says which way they turn"
                )
        self._places, self._names = places, names
        self.settings = [place.model_dump() for place in places]
        self._layout: ModuleLayout | None = None

    @classmethod
    def read(cls, headers: Sequence[Sequence[memoryview]], names: Sequence[str]) -> "Modules":
        """Return the modules whose header messages (parts) are `headers`.

        Raises
        ------
        MessageError
            One does not say where its module sits.
        """
        places = []
        for name, parts in zip(names, headers, strict=True):
            if len(parts) < 2:
                raise MessageError(f"{name}: a header without a second part, x and y of the module")
            with _named(name):
                places.append(read(_Place, parts[1]))
        return cls(places, names)

    @classmethod
    def of(cls, settings: Any, names: Sequence[str]) -> "Modules":
        """Return the modules of which a run says `settings`."""
        return cls([checked(_Place, place) for place in settings], names)

    def frame(
        self, messages: Sequence[Sequence[memoryview]]
    ) -> tuple[Blob, ItemSpec, Callable[[NDArray[Any]], None]]:
        """Return the first module's image, what the frame is like and what writes it.

        Raises
        ------
        PipelineError
            A module sent no image, or these modules do not fit together.
        """
        blobs = []
        for name, parts in zip(self._names, messages, strict=True):
            with _named(name):
                blobs.append(image_blob(parts))
        layout = self._laid_out([blob.shape for blob in blobs])
        dtype = np.result_type(np.int8, *(blob.item.dtype for blob in blobs))

        canvas = self._canvas

        def write(out: NDArray[Any]) -> None:
            canvas.fill_gaps(out)
            for k, blob in enumerate(blobs):
                with _named(self._names[k]):
                    canvas.place(out, k, blob.array())

        return blobs[0], ItemSpec.of(layout.canvas_shape, dtype), write

    def _laid_out(self, shapes: list[tuple[int, int]]) -> ModuleLayout:
        if self._layout is not None and list(self._layout.shapes) == shapes:
            return self._layout
        try:
            layout = ModuleLayout.from_translations([(p.x, p.y) for p in self._places], shapes)
        except CalibrationError as error:
            raise PipelineError(f"modules: {error}") from None
        full = self._places[0].full_shape
        if full is not None and tuple(full) != layout.canvas_shape:
            raise PipelineError(
                f"modules: full_shape {tuple(full)}, but they reach {layout.canvas_shape}"
            )
        self._layout, self._canvas = layout, Canvas(layout)
        self.mask = layout.assemble_mask([np.zeros(shape, np.uint32) for shape in shapes])
        return layout


def image_blob(parts: Sequence[memoryview]) -> Blob:
    """Return the image in the message `parts`.

    Raises
    ------
    MessageError
        There is none.
    """
    if len(parts) != 2:
        raise MessageError(f"an image of {len(parts)} parts, not of a header and a blob")
    image = read(_Image, parts[0])
    codec = _CODECS.get(image.compression)
    if codec is None:
        raise MessageError(f"compression {image.compression!r} is not one of {', '.join(_CODECS)}")
    shape = image.chunks or image.shape
    if any(n != 1 for n in shape[:-2]):
        raise MessageError(f"an image of shape {shape}")
    return Blob(parts[1], (shape[-2], shape[-1]), dtype_of(image.type), codec)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let errors begin with `name`."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(f"{name}: {error}") from None
