"""kubectl diffcache get"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from diffcache.commands.cluster.options import ContextOption, KubeconfigOption, NamespaceOption
from diffcache.output import Output, OutputOption, bad_option, note, print_json, print_table


def get(
    name: Annotated[str, typer.Argument(help="Only this DiffusionCache.", show_default=False)] = "",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List DiffusionCaches: whether they serve, and what their caches save."""
    from diffcache.cluster.kubectl import RESOURCE, Kubectl, checked_name
    from diffcache.cluster.objects import Resource, parse_list
    from diffcache.cluster.table import columns, row

    if name and all_namespaces:
        raise bad_option("a name belongs to one namespace: leave out NAME or -A", "NAME")
    words = ["--all-namespaces"] if all_namespaces else ["--", checked_name(name)] if name else []
    answer = Kubectl(namespace, context, kubeconfig).read(RESOURCE, *words)
    if output is Output.JSON:
        print_json(answer)
        return
    resources = parse_list(Resource, {"items": [answer]} if name else answer)
    if not resources:
        where = "in this cluster" if all_namespaces else "here: `kubectl diffcache get -A` looks in all namespaces"
        note(f"there is no DiffusionCache {where}")
        return
    now = datetime.now(UTC)
    print_table(columns(all_namespaces), [row(resource, now, all_namespaces) for resource in resources])
