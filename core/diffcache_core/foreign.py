"""Cleans foreign text for a terminal, a log, a condition or an event. Pure.

All text from outside must pass one of these functions before it is shown: a caller, a server, a file or a library may
put control characters and passwords into it.
"""

from __future__ import annotations

import re

_USER_PART = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
"""Matches the user part of a URL, up to the last `@` before the path: `user:password@`. The password may contain an
`@`."""


def printable(text: str) -> str:
    """Escapes line breaks and other control characters, so that the text cannot move the cursor or fake a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Like `printable`, but keeps line breaks: for texts of several lines."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def without_credentials(text: str) -> str:
    """Removes the user part of each URL in a text: `http://user:password@host` becomes `http://host`."""
    return _USER_PART.sub("", text)


def quoted(text: str, limit: int = 200) -> str:
    """Returns foreign text as a message may quote it: on one line, printable, without credentials, at most `limit`
    characters."""
    line = printable(" ".join(without_credentials(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's error as a message may quote it; the name of its class if it has no
    text."""
    lines = str(error).strip().splitlines()
    return quoted(lines[0]) if lines else type(error).__name__
