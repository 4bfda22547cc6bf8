"""What is in the messages of ASAP::O that bring pixels: frames, whole or in modules."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.lambda_modules import ModuleLayout
from phasewatch.pipeline.documents import ItemSpec
from phasewatch.pipeline.errors import PipelineError
from phasewatch.pipeline.messages import MessageError
from phasewatch.plugins.sources.asapo_messages import Finished, Message, Missing, Part
from phasewatch.plugins.sources.lambda_canvas import Canvas
from phasewatch.plugins.sources.seedee_array import Claim, read_claim, unpack
from phasewatch.plugins.sources.stream import Began, Ended, Found, Frame, Lost

MOST_EARLY = 4096  # messages that cannot be used, before the first that can

Translations = Sequence[tuple[float, float]]


class PixelDecoder:
    """Makes frames of messages; those of `translations` are assembled of that many modules.

    Every message is an item of the run, also one that cannot be used and came before the first
    frame: it is told when the run has begun.
    """

    def __init__(self, stream: str, translations: Translations | None = None) -> None:
        self._stream, self._translations = stream, translations
        self._claims: tuple[Claim, ...] = ()
        self._canvas: Canvas | None = None
        self._early: list[Lost] = []

    def __call__(self, message: Message | Missing | Finished) -> list[Found]:
        """Say what is in `message`."""
        if isinstance(message, Finished):
            return [*self._early, Ended()]
        try:
            if isinstance(message, Missing):
                raise MessageError(message.error)
            claims = tuple(_claim(part) for part in message.parts)
            begun = [] if self._claims else self._begin(claims)
            if self._canvas is not None and claims != self._claims:
                raise MessageError(f"{_said(claims)} came, not {_said(self._claims)}")
        except MessageError as error:
            return self._lost(Lost(message.id, str(error)))
        spec = claims[0].spec if self._canvas is None else self._spec
        write = partial(self._write, message.parts, claims)
        return [*begun, Frame(message.id, spec, write)]

    def _begin(self, claims: tuple[Claim, ...]) -> list[Found]:
        """Take the run to be of frames like this one."""
        n = 1 if self._translations is None else len(self._translations)
        if len(claims) != n:
            raise MessageError(f"a message of {len(claims)} parts, {n} are expected")
        canvas, spec = None, claims[0].spec
        if self._translations is not None:
            try:
                layout = ModuleLayout.from_translations(
                    self._translations, [claim.shape for claim in claims]
                )
            except CalibrationError as error:
                raise PipelineError(f"[source] translations: {error}") from None
            canvas = Canvas(layout)
            dtypes = (claim.dtype.newbyteorder("<") for claim in claims)
            spec = ItemSpec.of(layout.canvas_shape, np.result_type(np.int8, *dtypes))
        began = Began(spec, series=self._stream)
        self._canvas, self._spec, self._claims = canvas, spec, claims
        early, self._early = self._early, []
        return [began, *early]

    def _lost(self, lost: Lost) -> list[Found]:
        if self._claims:
            return [lost]
        self._early.append(lost)
        if len(self._early) > MOST_EARLY:
            raise PipelineError(f"the first {MOST_EARLY} messages cannot be used: {lost.error}")
        raise MessageError(lost.error)  # so that it is also said now

    def _write(self, parts: Sequence[Part], claims: Sequence[Claim], out: NDArray[Any]) -> None:
        if self._canvas is not None:
            self._canvas.fill_gaps(out)
        for module, (part, claim) in enumerate(zip(parts, claims, strict=True)):
            assert part.data is not None
            if self._canvas is None:
                unpack(claim, part.data, out)
            else:
                counts = np.empty(claim.shape, claim.dtype)
                unpack(claim, part.data, counts)
                self._canvas.place(out, module, counts)


def _claim(part: Part) -> Claim:
    user = part.meta.get("meta")
    if not isinstance(user, dict):
        raise MessageError("a message without meta: not an image of seedee")
    return read_claim(user.get("_data_format"))


def _said(claims: Sequence[Claim]) -> str:
    return ", ".join(f"{claim.dtype} {claim.shape}" for claim in claims)
