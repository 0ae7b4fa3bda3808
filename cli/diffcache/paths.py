"""Parses options that name a folder or a file."""

from __future__ import annotations

from pathlib import Path

from diffcache.output import bad_option


def named_path(text: str | Path) -> Path:
    """Parses a path, for typer's `parser=`. Refuses an empty text, such as an unset variable of a shell, because Python
    would use the current folder."""
    if not str(text):
        raise bad_option("must not be empty: name a folder or a file")
    return Path(text)
