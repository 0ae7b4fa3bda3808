"""kubectl diffcache status"""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from diffcache.commands.cluster.options import ContextOption, KubeconfigOption, NameArgument, NamespaceOption
from diffcache.output import Output, OutputOption, print_json, show


def status(
    name: NameArgument,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how a DiffusionCache is, why, and what to do about it. Exit status 1 unless it is ready."""
    from diffcache.cluster.kubectl import Kubectl
    from diffcache.cluster.reading import read_surroundings
    from diffcache.cluster.report import facts, layout

    around = read_surroundings(Kubectl(namespace, context, kubeconfig), name)
    now = datetime.now(UTC)
    if output is Output.JSON:
        print_json(facts(around, now))
    else:
        show(layout(around, now))
    if not around.resource.is_ready:
        raise typer.Exit(1)
