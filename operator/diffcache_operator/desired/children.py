"""All children of a resource, as they are applied."""

from __future__ import annotations

from diffcache_core.spec import DiffusionCache, IndexType
from diffcache_operator.desired.config import config_map
from diffcache_operator.desired.metadata import JSON
from diffcache_operator.desired.milvus import milvus_service, milvus_stateful_set
from diffcache_operator.desired.network import client_service, pods_service, service_account
from diffcache_operator.desired.serving import stateful_set


def desired_children(
    resource: DiffusionCache, serving_image: str, milvus_image: str, pull_secrets: tuple[str, ...] = ()
) -> list[JSON]:
    """In the order of application: what others refer to comes first."""
    children = [
        service_account(resource, pull_secrets),
        config_map(resource),
        pods_service(resource),
        client_service(resource),
    ]
    if resource.spec.index.type is IndexType.STANDALONE:
        children += [milvus_service(resource), milvus_stateful_set(resource, milvus_image)]
    children.append(stateful_set(resource, serving_image))
    return children
