"""kubectl diffcache tuning"""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from diffcache.commands.cluster.options import ContextOption, KubeconfigOption, NameArgument, NamespaceOption
from diffcache.output import Output, OutputOption, note, print_json, show


def tuning(
    name: NameArgument,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the tuner has decided, and from what. Exit status 1 if the DiffusionCache is not tuned."""
    from diffcache.cluster.kubectl import Kubectl
    from diffcache.cluster.reading import read_resource
    from diffcache.tuning_report import facts, layout
    from diffcache_core.resource.status import TuningStatus

    resource = read_resource(Kubectl(namespace, context, kubeconfig), name)
    mode, record = resource.spec.tuning.mode, resource.status.tuning or TuningStatus()
    condition = resource.status.condition("TuningActive")
    if output is Output.JSON:
        print_json(facts(name, mode, record, condition))
    elif mode == "Disabled" and not record.history:
        note(f"{name} is not tuned: set spec.tuning.mode to Recommend or Auto")
    else:
        show(layout(name, mode, record, datetime.now(UTC), condition))
    if mode == "Disabled":
        raise typer.Exit(1)
