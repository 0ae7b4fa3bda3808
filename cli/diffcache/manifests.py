"""Reads the manifest for a command, from a file or from standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcache.paths import named_path
from diffcache_core.documents import MAX_BYTES, DocumentError, checked_text
from diffcache_core.resource.manifest import ManifestError, parse_manifest
from diffcache_core.resource.manifest import read_manifest as read_file
from diffcache_core.resource.spec import DiffusionCache

ManifestOption = Annotated[
    Path,
    typer.Option(
        "--file",
        "-f",
        parser=named_path,
        help="YAML with a DiffusionCache, also as kubectl prints it; - reads it here.",
    ),
]
NameOption = Annotated[
    str,
    typer.Option("--name", help="Which DiffusionCache, where the file has several: NAME or NAMESPACE/NAME."),
]


def read_manifest(path: Path, name: str = "", *, private: bool = False) -> DiffusionCache:
    """Reads a manifest; `-` is standard input. Raises ManifestError if it cannot be used.

    With `private`, URLs may contain a password, because nobody else reads the manifest.
    """
    if str(path) != "-":
        return read_file(path, name, private=private)
    origin = "standard input"
    try:
        text = checked_text(sys.stdin.buffer.read(MAX_BYTES + 1), origin)
        return parse_manifest(text, origin, name, private=private)
    except DocumentError as error:
        raise ManifestError(str(error)) from None
