"""Prints the results of commands: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from diffcache_core.foreign import printable, printable_lines, without_credentials


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


OUTPUT_HELP = "How to print: a table or JSON."
OutputOption = Annotated[Output, typer.Option("--output", "-o", help=OUTPUT_HELP)]


def say(text: str) -> None:
    """Prints to standard output. Escapes control characters."""
    typer.echo(printable_lines(text))


def note(text: str) -> None:
    """Prints an error or status message to standard error. Escapes control characters, removes passwords of URLs."""
    typer.echo(printable_lines(without_credentials(text)), err=True)


def bad_option(message: str, option: str = "") -> typer.BadParameter:
    """Returns the error for a wrong option; its exit status is 2."""
    return typer.BadParameter(printable(without_credentials(message)), param_hint=option or None)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2).replace("\x7f", "\\u007f"))  # the only control character JSON keeps


def print_document(text: str) -> None:
    """Prints YAML or JSON that a library has written and escaped. `text` must end with a line break."""
    typer.echo(text, nl=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))  # Text, so that a prompt is not read as markup
    show(table)


def show(what: RenderableType) -> None:
    console().print(what)


class _PrintableConsole(Console):
    """Escapes control characters in all texts, except those that it creates itself for colours."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def console(stderr: bool = False) -> Console:
    """Returns a console. Output to a file or a pipe is not folded to the width of a terminal."""
    terminal = _PrintableConsole(stderr=stderr)
    return terminal if terminal.is_terminal else _PrintableConsole(stderr=stderr, width=200)


def size(count: int) -> str:
    """Formats a number of bytes for people."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def duration(seconds: float) -> str:
    """Formats a duration for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
