"""What is wrong with the value of an option, in our words; typer's are those of the library that it checks with."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperGroup

_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input should ", "must "),
    (r", unable to parse string as an? \w+$", ""),
    (r"^Unable to parse input string as an integer, exceeded maximum size$", "must be an integer of fewer digits"),
)


class Commands(TyperGroup):
    """Commands whose refusals of an option's value are plain."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:  # noqa: TID251  # typer's own, which no other place sees
            error.message = plain(error.message)
            raise


def plain(message: str) -> str:
    """The message without the words of pydantic."""
    for pattern, word in _WORDS:
        message = re.sub(pattern, word, message)
    return message
