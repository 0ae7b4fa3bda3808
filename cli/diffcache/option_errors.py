"""Rewrites the messages about wrong values of options, because those of typer come from the library that it uses."""

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
    """A group of commands with plain messages for wrong values of options."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:  # noqa: TID251  # typer's own error; only this place handles it
            error.message = plain(error.message)
            raise


def plain(message: str) -> str:
    """Returns the message without the words of pydantic."""
    for pattern, word in _WORDS:
        message = re.sub(pattern, word, message)
    return message
