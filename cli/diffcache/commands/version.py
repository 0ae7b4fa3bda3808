"""--version, of both programs"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from diffcache.output import say


def _print_version(wanted: bool) -> None:
    if wanted:
        say(version("diffcache"))
        raise typer.Exit


def options(
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    return None
