"""The base of all views. A view ignores fields that it does not name, so a newer API server may send more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel


class View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Removes nulls: Go writes null for an absent value."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


def _readable(given: object, parse: ValidatorFunctionWrapHandler) -> datetime | None:
    try:
        parsed: datetime | None = parse(given)
    except ValidationError:
        return None
    return parsed


Time = Annotated[AwareDatetime | None, WrapValidator(_readable)]
"""A time in a field that any user may write, as in an event; None if it cannot be parsed. Go has years that Python does
not have, and such a time must not stop the reader."""


class Condition(View):
    """`status`: `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time = None
