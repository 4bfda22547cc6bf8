"""The documents of a run: ``start``, then batches, then ``stop``; and the events between.

What never changes in a run is said once, in `RunStart`. Unknown fields are refused. The JSON schema
of all of them is committed in ``schema.json``.
"""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

WHOLE = "end of run"  # the reason of a stop when the source was read to its end

Unit = Literal["2th_deg", "q_nm^-1", "q_A^-1"]
Text = Annotated[str, Field(max_length=4096)]
Edge = Annotated[int, Field(ge=0, lt=1 << 24)]
Span = Annotated[int, Field(ge=1, lt=1 << 24)]


class Document(BaseModel):
    """Base of all documents: frozen, strict, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )


class ItemSpec(Document):
    """Shape (without the first axis, the items) and dtype of one array of the batches."""

    shape: tuple[Annotated[int, Field(ge=0)], ...] = Field(max_length=4)
    dtype: Annotated[str, Field(max_length=8)]

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any) -> "ItemSpec":
        """Describe items of `shape` and `dtype` (anything `numpy.dtype` takes)."""
        return cls(shape=shape, dtype=np.dtype(dtype).str)


class Packing(Document):
    """How frames come compressed: as one chunk of bytes per tile (top, left, height, width).

    `codec` is what the chunks are compressed by (`phasewatch.pipeline.packing`), `dtype` that of
    their numbers. Between the tiles the frame is `fill`; `flip`: the rows are then reversed.
    """

    codec: Annotated[str, Field(max_length=32)]
    dtype: Annotated[str, Field(max_length=8)]
    tiles: Annotated[tuple[tuple[Edge, Edge, Span, Span], ...], Field(max_length=64)]
    flip: bool = False
    fill: int = 0


class RunStart(Document):
    """What is true of the whole run at one point of the chain; each stage hands on its own.

    `constants` are arrays said once: ``axis`` (n_bins,) float64 in `unit`, ``mask`` (height, width)
    bool, true = invalid. On a socket they follow the header as raw parts.
    """

    run_id: Annotated[str, Field(min_length=1, max_length=128)]
    source: Text
    items: dict[str, ItemSpec]
    unit: Unit | None = None
    wavelength_m: Annotated[float, Field(gt=0, lt=1e-6)] | None = None
    saturation: float | None = None
    expected: Annotated[int, Field(ge=0)] | None = None
    classes: tuple[Text, ...] = ()
    digests: dict[str, Text] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    constants: SkipJsonSchema[dict[str, NDArray[Any]]] = Field(default_factory=dict, exclude=True)

    def evolve(self, **changes: Any) -> "RunStart":
        """Return a copy with `changes`, validated."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return RunStart(**{**fields, **changes})


class Zone(Document):
    """The ambiguity zone between class ``boundary`` and ``boundary + 1``.

    It is the `n` items with a label and ``after < seq < before``. `after` is -1 when the run does
    not begin below the boundary, `before` one more than the last seq when it does not end above it;
    the boundary was passed where it does both.
    """

    boundary: int
    after: int
    before: int
    n: int
    passed: bool


class Event(Document):
    """Something that happened to the sample, as the tracker saw it.

    ``reset``: the tracker began anew with item `seq`, because a user asked for it.
    """

    kind: Literal["onset", "completed", "reversed", "unknown", "reset"]
    seq: int
    id: int
    t_acq: int | None
    phase: int
    posterior: float


class Loss(Document):
    """Where every item of the run ended: the loss table.

    ``received + missed + not_read == expected`` and
    ``received == classified + sum(dropped) + failed``. `classified` are the items that reached the
    end of the chain, also of one that ends with patterns. `not_read` is what the source still held
    when the run was ended early.
    """

    expected: int | None = None
    received: int = 0
    missed: int = 0
    classified: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    failed: int = 0
    not_read: int = 0


class FailureKind(Document):
    """Failures that differ in numbers only: how many, and the first of them."""

    stage: Text
    error: Text
    n: int
    first_seq: int


class RunStop(Document):
    """The end of a run: why, what was lost, and what was found."""

    run_id: str
    reason: Text
    loss: Loss
    confidence: float | None = None
    zones: tuple[Zone, ...] = ()
    events: tuple[Event, ...] = ()
    failures: tuple[FailureKind, ...] = ()
    latency_ms: dict[str, Any] = Field(default_factory=dict)
    rate_hz: float | None = None
