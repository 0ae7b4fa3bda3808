"""The `diffcache` command. Imports nothing heavy: each command imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from diffcache.commands import cache
from diffcache.commands.calibrate import calibrate
from diffcache.commands.generate import generate
from diffcache.commands.stats import stats
from diffcache.commands.up import up

app = typer.Typer(
    help="Approximate caching for text-to-image serving: similar prompts resume from cached latents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(up)
app.command()(generate)
app.command()(stats)
app.add_typer(cache.app, name="cache")
app.command()(calibrate)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("diffcache"))
        raise typer.Exit


@app.callback()
def _options(
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    return None


def main(arguments: list[str] | None = None) -> None:
    """Exit status 0; 1 when the server failed; 2 when what was asked for has to change."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines; what failed is said in ours
    try:
        app(arguments)
    except Exception as error:  # the last door: no traceback reaches a user
        status = explain(error)
        if os.environ.get("DIFFCACHE_DEBUG"):
            raise
        sys.exit(status)


def explain(error: Exception) -> int:
    """Prints what went wrong and what to do; returns the exit status."""
    from diffcache.wire import GenerationError
    from diffcache_core.manifest import ManifestError

    if isinstance(error, GenerationError):
        text = str(error)
        if error.code == "UNAVAILABLE" and "connect" in error.message:
            text = "no server answers there: is `diffcache up -f MANIFEST` running, and --server or --admin right?"
        print(f"diffcache: {text}", file=sys.stderr)
        return 2 if error.code == "INVALID_ARGUMENT" else 1
    if isinstance(error, UnicodeError):
        print("diffcache: an argument is not valid Unicode text: retype it", file=sys.stderr)
        return 2
    if isinstance(error, ManifestError):
        print(f"diffcache: {error}", file=sys.stderr)
        return 2
    print(f"diffcache: unexpected {type(error).__name__}: {error} (DIFFCACHE_DEBUG=1 shows where)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
