"""Options that name a folder or a file."""

from __future__ import annotations

from pathlib import Path

from diffcache.output import bad_option


def named_path(text: str | Path) -> Path:
    """For typer's `parser=`, of each option that is a path. Python takes an empty text, as of a variable that is not
    set in a shell, for the current folder."""
    if not str(text):
        raise bad_option("must not be empty: name a folder or a file")
    return Path(text)
