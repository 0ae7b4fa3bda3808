"""What every view has in common. It ignores what it does not name, so a newer API server may answer more."""

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
        """Go writes null for what is not there."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


def _readable(given: object, parse: ValidatorFunctionWrapHandler) -> datetime | None:
    try:
        parsed: datetime | None = parse(given)
    except ValidationError:
        return None
    return parsed


Time = Annotated[AwareDatetime | None, WrapValidator(_readable)]
"""Of what anybody may write, as into an event: Go has years that Python has not, and one such must stop nobody."""


class Condition(View):
    """`status`: `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time = None
