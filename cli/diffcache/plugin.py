"""The commands of `kubectl diffcache`. They have the same options as the local commands."""

from __future__ import annotations

import typer

from diffcache.commands import cache
from diffcache.commands.cluster.at_pod import at_pod
from diffcache.commands.cluster.get import get
from diffcache.commands.cluster.status import status
from diffcache.commands.cluster.tuning import tuning
from diffcache.commands.cluster.upgrade import upgrade
from diffcache.commands.generate import generate
from diffcache.commands.render import render
from diffcache.commands.stats import stats
from diffcache.commands.version import options
from diffcache.option_errors import Commands
from diffcache_core.names import ADMIN_PORT, GRPC_PORT

EXAMPLES = (
    "kubectl diffcache get -A",
    "kubectl diffcache status emoji -n studio",
    'kubectl diffcache generate emoji "red apple, noto style" -o apple.png',
    "kubectl diffcache stats emoji -o json",
    "kubectl diffcache tuning emoji",
    'kubectl diffcache purge emoji --prompt "red apple, noto style"',
    "kubectl diffcache upgrade emoji",
    "kubectl diffcache render -f emoji.yaml",
)

app = typer.Typer(
    cls=Commands,
    help="DiffusionCaches of a cluster: how they are, pictures from them, and their caches.",
    epilog="\n\n".join(("Examples:", *EXAMPLES)),
    no_args_is_help=True,
    add_completion=False,  # the shell completes `kubectl`, which does not support the completion of typer
    pretty_exceptions_enable=False,
)
app.callback()(options)
app.command()(get)
app.command()(status)
app.command()(tuning)
# No TLS options here: the connection of kubectl to the pod is encrypted and authenticated by the cluster.
app.command("generate")(at_pod(generate, GRPC_PORT, "server", without=("tls", "ca_certificate")))
app.command("stats")(at_pod(stats, ADMIN_PORT, "admin"))
app.command("entries")(at_pod(cache.ls, ADMIN_PORT, "admin"))
app.command("entry")(at_pod(cache.show, ADMIN_PORT, "admin"))
app.command("purge")(at_pod(cache.purge, ADMIN_PORT, "admin"))
app.command()(upgrade)
app.command()(render)
