"""The `diffcache` command, and `kubectl diffcache`.

This module imports nothing heavy: each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from diffcache.commands import cache
from diffcache.commands.calibrate import calibrate
from diffcache.commands.generate import generate
from diffcache.commands.render import render
from diffcache.commands.simulate_loops import simulate_loops
from diffcache.commands.stats import stats
from diffcache.commands.tuning import tuning
from diffcache.commands.up import up
from diffcache.commands.version import options
from diffcache.option_errors import Commands

PLUGIN = "kubectl-diffcache"

app = typer.Typer(
    cls=Commands,
    help="Approximate caching for text-to-image serving: similar prompts resume from cached latents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(up)
app.command()(generate)
app.command()(stats)
app.command()(tuning)
app.add_typer(cache.app, name="cache")
app.command()(calibrate)
app.command()(render)
app.command()(simulate_loops)
app.callback()(options)


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Runs the command line. The exit status is 0; 1 if the server or the cluster failed; 2 if the user has to change
    the request.

    `program` is the name of the called program. kubectl calls `kubectl-diffcache`, which has the cluster commands.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # hides the log lines of grpc; we print the error ourselves
    chosen, name = app, None
    if Path(program or sys.argv[0]).stem == PLUGIN:
        from diffcache.plugin import app as chosen

        name = "kubectl diffcache"  # the help shows what the user types
    try:
        chosen(arguments, prog_name=name)
    except Exception as error:  # the last handler, so that users never see a traceback
        status = explain(error)
        if os.environ.get("DIFFCACHE_DEBUG"):
            raise
        sys.exit(status)


def explain(error: Exception) -> int:
    """Prints what went wrong and what to do. Returns the exit status."""
    from diffcache.cluster.errors import ClusterError
    from diffcache.connections import is_nobody
    from diffcache.output import note
    from diffcache.wire import GenerationError, proxy_advice
    from diffcache_core.resource.manifest import ManifestError

    if isinstance(error, GenerationError):
        text = str(error)
        if error.code == "UNAVAILABLE" and is_nobody(error.message):
            text = "no server answers there: is `diffcache up -f MANIFEST` running, and --server or --admin right?"
            if error.proxy:
                text = f"no server answers through {proxy_advice(error.proxy)}; are --server and --admin right?"
        elif error.code == "UNIMPLEMENTED":
            text = "this server does not know the call: is it the other endpoint's port, or an older server?"
        note(f"diffcache: {text}")
        return 2 if error.code == "INVALID_ARGUMENT" else 1
    if isinstance(error, UnicodeError):
        note("diffcache: an argument is not valid Unicode text: retype it")
        return 2
    if isinstance(error, ClusterError):
        note(f"diffcache: {error}")
        return error.status
    if isinstance(error, ManifestError):
        note(f"diffcache: {error}")
        return 2
    note(f"diffcache: unexpected {type(error).__name__}: {error} (DIFFCACHE_DEBUG=1 shows where)")
    return 1


if __name__ == "__main__":
    main()
