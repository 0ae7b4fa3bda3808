"""How commands answer: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffcache_core.foreign import printable


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


OUTPUT_HELP = "How to print: a table or JSON."
OutputOption = Annotated[Output, typer.Option("--output", "-o", help=OUTPUT_HELP)]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))  # Text: a prompt is no markup
    console().print(table)


def console() -> Console:
    """Of standard output; what goes into a file or a pipe is not folded to a terminal's width."""
    return Console(width=None if Console().is_terminal else 200)


def size(count: int) -> str:
    """Bytes as a person reads them."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def duration(seconds: float) -> str:
    """Time that has passed, as a person reads it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
