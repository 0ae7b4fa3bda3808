"""kubectl diffcache upgrade"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diffcache.commands.cluster.options import ContextOption, KubeconfigOption, NameArgument, NamespaceOption
from diffcache.output import bad_option, say
from diffcache_core.names import IMAGE_ANNOTATION

if TYPE_CHECKING:
    from diffcache.cluster.objects import Resource


def upgrade(
    name: NameArgument,
    image: Annotated[
        str, typer.Option(help="The serving image. Default: the operator's, if it is another.", show_default=False)
    ] = "",
    namespace: NamespaceOption = "",
    context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Move a DiffusionCache to another serving image. Its pods are replaced, its cache stays."""
    from diffcache.cluster.kubectl import RESOURCE, Kubectl
    from diffcache.cluster.reading import read_resource

    if image and not (image.isprintable() and " " not in image):
        raise bad_option("must be an image such as docker.io/diffcache/serving:0.2.0", "--image")
    kubectl = Kubectl(namespace, context, kubeconfig)
    resource = read_resource(kubectl, name)
    target = next_image(resource, image)
    if not target:
        say(f"nothing to do: {name} runs {resource.image or 'no image yet'}, and no other is on offer")
        return
    if target == resource.image_to_be:
        where = "runs" if target == resource.image else "is on its way to"
        say(f"nothing to do: {name} {where} {target} already")
        return
    kubectl.run("annotate", "--overwrite", f"{RESOURCE}/{name}", "--", f"{IMAGE_ANNOTATION}={target}")
    say(
        f"{name}: {resource.image or 'no image yet'} -> {target}. Its pod is replaced by one of this image, its cache "
        f"stays; `{kubectl.advice(f'kubectl diffcache status {name}')}` shows how far it is"
    )


def next_image(resource: Resource, wanted: str) -> str:
    """Returns the image to move to, or an empty string if there is none. Raises ClusterError. Pure."""
    from diffcache.cluster.errors import ClusterError

    pinned = resource.spec.serving.image
    if pinned and pinned != wanted:
        raise ClusterError(
            f"spec.serving.image of {resource.name} names {pinned}, which holds: change it there, or "
            "remove it and run this again",
            2,
        )
    return wanted or resource.status.serving.available
