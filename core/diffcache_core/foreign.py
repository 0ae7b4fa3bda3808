"""Text that somebody else wrote, on its way to a terminal, a log, a condition or an event. Pure.

Every such text goes through one of these functions: a caller, a server, a file and a library may all put control
characters and passwords into what we repeat.
"""

from __future__ import annotations

import re

_USER_PART = re.compile(r"(?<=://)[^\s/?#\"'<>]*@")
"""Of a URL, up to its last `@` before the path: `user:password@`. The password itself may hold an `@`."""


def printable(text: str) -> str:
    """Line breaks and other control characters as escapes, so that no text moves the cursor or forges a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """As `printable`, but the text keeps its lines: for messages and reports of several."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def without_credentials(text: str) -> str:
    """The text without the user part of any URL in it: `http://user:password@host` becomes `http://host`."""
    return _USER_PART.sub("", text)


def quoted(text: str, limit: int = 200) -> str:
    """What a message may repeat of foreign text: on one line, printable, without credentials, at most `limit`
    characters."""
    line = printable(" ".join(without_credentials(text).split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def first_line(error: BaseException) -> str:
    """What a message may repeat of a library's error; its class where the error has no text."""
    lines = str(error).strip().splitlines()
    return quoted(lines[0]) if lines else type(error).__name__
