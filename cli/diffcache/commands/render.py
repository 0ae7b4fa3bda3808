"""diffcache render"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffcache.manifests import ManifestOption, NameOption, read_manifest
from diffcache.output import print_document
from diffcache_core.names import MILVUS_IMAGE, REDIS_IMAGE, SERVING_IMAGE

if TYPE_CHECKING:
    from yaml import SafeDumper

    from diffcache_core.resource.spec import DiffusionCache


class Format(StrEnum):
    YAML = "yaml"
    JSON = "json"


def render(
    manifest: ManifestOption,
    serving_image: Annotated[
        str, typer.Option(help=f"The operator's default.  [default: {SERVING_IMAGE}:VERSION]", show_default=False)
    ] = "",
    milvus_image: Annotated[str, typer.Option(help="The operator's default.")] = MILVUS_IMAGE,
    redis_image: Annotated[str, typer.Option(help="The operator's default.")] = REDIS_IMAGE,
    pull_secret: Annotated[
        list[str] | None, typer.Option(help="As the operator's IMAGE_PULL_SECRETS; may be repeated.")
    ] = None,
    name: NameOption = "",
    fixed_ids: Annotated[
        bool, typer.Option("--fixed-ids/--no-fixed-ids", help="As the chart's value fixedIds.")
    ] = True,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="For a manifest that names none.", show_default=False)
    ] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="YAML documents, or a JSON List.")] = Format.YAML,
) -> None:
    """Print what the operator would apply for a manifest on an empty cluster. Asks no cluster."""
    from importlib.metadata import version

    from diffcache_core.resource.status import DiffusionCacheStatus
    from diffcache_operator.desired.children import desired_children
    from diffcache_operator.desired.placement import PodDefaults
    from diffcache_operator.images import Images, images_in_use
    from diffcache_operator.observed import Observed

    resource = _in_namespace(read_manifest(manifest, name), namespace, manifest)
    defaults = Images(serving_image or f"{SERVING_IMAGE}:{version('diffcache')}", milvus_image, redis_image)
    images = images_in_use(resource, DiffusionCacheStatus(), Observed({}), defaults)
    objects = desired_children(resource, images, PodDefaults(tuple(pull_secret or ()), fixed_ids))
    print_document(_as_json(objects) if output is Format.JSON else _as_yaml(objects, resource.metadata.name))


def _in_namespace(resource: DiffusionCache, namespace: str, path: Path) -> DiffusionCache:
    """Returns the resource in `namespace`. Raises ManifestError if its manifest names another one."""
    from diffcache_core.resource.manifest import ManifestError

    metadata = resource.metadata
    if namespace not in ("", metadata.namespace) and "namespace" in metadata.model_fields_set:
        raise ManifestError(f"{path} is for the namespace {metadata.namespace}, not {namespace}: leave out -n")
    # Removes the uid that a manifest from a cluster has, because an empty cluster has no owners.
    changes = {"namespace": namespace or metadata.namespace, "uid": ""}
    return resource.model_copy(update={"metadata": metadata.model_copy(update=changes)})


def _as_yaml(objects: list[dict[str, Any]], name: str) -> str:
    import yaml

    head = (
        f"# What the operator applies for the DiffusionCache {name} on an empty cluster. The ownerReferences are left\n"
        "# out: they hold the uid that a cluster gives the resource.\n"
    )
    return head + yaml.dump_all(objects, Dumper=_dumper(), explicit_start=True, sort_keys=False, width=120)


def _dumper() -> type[SafeDumper]:
    """Returns a YAML dumper that writes texts of several lines, such as a config file, line by line."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True  # writes identical labels in full instead of aliases, for people and diffs

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, represent)
    return Dumper


def _as_json(objects: list[dict[str, Any]]) -> str:
    import json

    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2) + "\n"
