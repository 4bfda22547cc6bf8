"""JSON parts of messages, hostile until they have been checked."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phasewatch.pipeline.messages import LIMITS, MessageError

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Text = Annotated[str, Field(max_length=128)]


class Header(BaseModel):
    """Base of all headers: strict types, fields that we do not need are skipped."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


H = TypeVar("H", bound=Header)


class Kind(Header):
    """What a part says it is."""

    htype: Text | Annotated[list[Text], Field(max_length=4)]


def read(model: type[H], part: Any) -> H:
    """Return what `part`, bytes of JSON, says.

    Raises
    ------
    MessageError
        It is no JSON, too long, or a field is missing or of another kind.
    """
    if len(part) > LIMITS.header_bytes:
        raise MessageError(f"a header of {len(part)} bytes")
    try:
        return model.model_validate_json(bytes(part))
    except ValidationError as error:
        raise MessageError(_said(error)) from None


def checked(model: type[H], fields: Any) -> H:
    """Return `fields`, values that are decoded already, as `model`; raises as `read` does."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise MessageError(_said(error)) from None


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step)[:40] for step in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
