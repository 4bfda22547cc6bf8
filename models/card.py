"""The card of a model: what it is, what its input must be, and what it was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from phasewatch.models.errors import ModelError

WEIGHTS = "model.safetensors"
CARD = "card.json"

Unit = Literal["2th_deg", "q_nm^-1", "q_A^-1"]
Text = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

TOLERANCE = 1e-3  # of a bin: two axes that differ by less are the same
REMEDY = "reduce them as what it was trained on, or train it on such"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Axis(_Frozen):
    """The axis of the patterns: `n` points from `start` to `stop`, in `unit`.

    `points` holds all of them where they are not equidistant, else None.
    """

    start: Finite
    stop: Finite
    n: Annotated[int, Field(ge=2)]
    unit: Unit
    points: tuple[Finite, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.stop > self.start:
            raise ValueError(f"stop {self.stop} is not greater than start {self.start}")
        if self.points is not None:
            if len(self.points) != self.n:
                raise ValueError(f"{len(self.points)} points where n is {self.n}")
            if (self.points[0], self.points[-1]) != (self.start, self.stop):
                raise ValueError("points do not begin with start and end with stop")
            if not (np.diff(self.points) > 0).all():
                raise ValueError("points do not increase")
        return self

    @classmethod
    def of(cls, axis: NDArray[np.float64], unit: str) -> "Axis":
        """Describe `axis` (n,), in `unit`."""
        start, stop, n = float(axis[0]), float(axis[-1]), len(axis)
        equidistant = _offset(axis, np.linspace(start, stop, n)) <= TOLERANCE
        points = None if equidistant else tuple(float(x) for x in axis)
        return cls.model_validate(
            {"start": start, "stop": stop, "n": n, "unit": unit, "points": points}
        )

    def values(self) -> NDArray[np.float64]:
        """Return the points (n,) float64."""
        if self.points is not None:
            return np.array(self.points)
        return np.linspace(self.start, self.stop, self.n)

    def __str__(self) -> str:
        return f"{self.n} points from {self.start:.6g} to {self.stop:.6g} {self.unit}"


class Training(_Frozen):
    """What a model was trained on, and how."""

    digest: Text  # sha256 of the series' axis and intensity
    provenance: Text  # the series' file, and what else is known of it
    labels: dict[int, int]  # index in the series -> class
    n_patterns: Count  # of the series; the unlabelled ones set the range of novelty
    recipe: dict[str, Any]  # its name and values
    seed: int
    epochs: Count  # that were run
    loss: Finite  # on patterns that were held out, or the last of training where none were
    notes: dict[str, Any] = Field(default_factory=dict)  # of the architecture and its fit


class Card(_Frozen):
    """All that a chain has to know of a model; saved beside its weights.

    `metrics` holds per data set what `phasewatch.models.evaluate` found. `sha256` is that of
    ``model.safetensors``; empty until the model is saved.
    """

    architecture: Text
    options: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(min_length=2)
    axis: Axis
    baseline: dict[str, Any]
    normalise: Text
    context: Annotated[int, Field(ge=0)] = 0  # earlier patterns needed; 0 = none
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    training: Training
    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    n_parameters: Count
    licence: Text = "not stated"
    versions: dict[str, Text] = Field(default_factory=dict)
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: {', '.join(self.classes)}: a name is there twice")
        if "method" not in self.baseline:
            raise ValueError('baseline: key "method" is missing')
        return self

    def to_json(self) -> str:
        """Return the card as JSON text, one field per line."""
        fields = self.model_dump(mode="json").items()
        lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields)
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Card":
        """Read what `to_json` wrote; an error names `where` and the field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            message = " ".join(first["msg"].split())
            again = ": copy or train the model again" if first["type"] == "json_invalid" else ""
            raise ModelError(f"{where}: {field + ': ' if field else ''}{message}{again}") from None


def read_card(folder: str | Path) -> Card:
    """Read the card of the model in `folder`, alone."""
    path = Path(folder) / CARD
    return Card.from_json(read_file(path), str(path))


def read_file(path: Path) -> bytes:
    """Read a file of a model.

    Raises
    ------
    ModelError
        It is missing.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: a model is a folder with {WEIGHTS} and {CARD}"
        ) from None


def check(
    card: Card,
    *,
    axis: NDArray[np.float64],
    unit: str | None,
    baseline: Mapping[str, Any],
    normalise: str,
) -> None:
    """Refuse patterns that were not made as those the model was trained on.

    Parameters
    ----------
    axis
        (n,) float64, of the patterns, in `unit`; the same when no point is off by more than 1e-3 of
        a bin.
    baseline, normalise
        The settings with which the patterns were made.

    Raises
    ------
    ModelError
        One of them differs from the card's; names it and both values.
    """

    def refuse(field: str, found: object, wanted: object) -> None:
        raise ModelError(f"{_differs(field, found, wanted)}: {REMEDY}")

    if unit != card.axis.unit:
        refuse("unit", unit, card.axis.unit)
    axis = np.asarray(axis, np.float64)
    if axis.ndim != 1 or len(axis) != card.axis.n:
        found = f"{axis.shape[0]} points" if axis.ndim == 1 else f"shape {axis.shape}"
        if axis.ndim == 1 and axis.size:
            found += f" from {axis[0]:.6g} to {axis[-1]:.6g} {unit}"
        refuse("axis", found, card.axis)
    wanted = card.axis.values()
    if not _offset(axis, wanted) <= TOLERANCE:
        i = int(np.argmax(np.abs(axis - wanted)))
        refuse("axis", f"{axis[i]:.8g} at point {i}", f"{wanted[i]:.8g}")
    check_settings(card, baseline=baseline, normalise=normalise)


def check_settings(card: Card, *, baseline: Mapping[str, Any], normalise: str) -> None:
    """Refuse as `check`, before there is an axis: all that differs is in one error."""
    wrong = []
    if dict(baseline) != card.baseline:
        wrong.append(_differs("baseline", dict(baseline), card.baseline))
    if normalise != card.normalise:
        wrong.append(_differs("normalise", repr(normalise), repr(card.normalise)))
    if wrong:
        raise ModelError(f"{'; '.join(wrong)}: {REMEDY}")


def _differs(field: str, found: object, wanted: object) -> str:
    return f"{field}: the patterns have {found}, the model's card has {wanted}"


def _offset(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the largest difference of two axes, in mean bins of `b`."""
    return float(np.abs(a - b).max() / ((b[-1] - b[0]) / (len(b) - 1)))
