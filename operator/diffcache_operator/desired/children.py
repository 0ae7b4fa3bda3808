"""All desired children of a resource, as the operator applies them."""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import milvus_name, redis_name
from diffcache_core.resource.spec import DiffusionCache, IndexType, LedgerType, is_shared
from diffcache_core.resource.status import TuningStatus
from diffcache_operator.desired.config import config_map
from diffcache_operator.desired.disruption import disruption_budget
from diffcache_operator.desired.milvus import milvus_service, milvus_stateful_set
from diffcache_operator.desired.network import client_service, pods_service, service_account
from diffcache_operator.desired.placement import CHART_DEFAULTS, PodDefaults
from diffcache_operator.desired.redis import redis_service, redis_stateful_set
from diffcache_operator.desired.serving import stateful_set
from diffcache_operator.images import Images
from diffcache_operator.metadata import JSON, Reference, config_name, pods_service_name


def child_references(resource: DiffusionCache) -> list[Reference]:
    """Returns references to the children that `desired_children` makes, in the same order. They are read first, because
    the existing ones decide which images are used."""
    name = resource.metadata.name
    config, pods = config_name(name), pods_service_name(name)
    references = [
        Reference("v1", "ServiceAccount", name),
        Reference("v1", "ConfigMap", config),
        Reference("v1", "Service", pods),
        Reference("v1", "Service", name),
    ]
    if is_shared(resource.spec):
        references.append(Reference("policy/v1", "PodDisruptionBudget", name))
    if resource.spec.cache.ledger.type is LedgerType.PROVISIONED:
        references += _beside(redis_name(name))
    if resource.spec.index.type is IndexType.STANDALONE:
        references += _beside(milvus_name(name))
    return [*references, Reference("apps/v1", "StatefulSet", name)]


def _beside(name: str) -> list[Reference]:
    return [Reference("v1", "Service", name), Reference("apps/v1", "StatefulSet", name)]


def desired_children(
    resource: DiffusionCache,
    images: Images,
    defaults: PodDefaults = CHART_DEFAULTS,
    *,
    pods_left: bool = False,
    tuning: TuningStatus | None = None,
) -> list[JSON]:
    """Returns the children in the order in which to apply them: objects that others refer to come first.

    `pods_left`: some serving pods are still ending and need index and ledger for their last writes. `tuning`: the
    tuner's record, if the pods must follow it.
    """
    at_work = resource.spec.serving.replicas > 0 or pods_left
    children = [
        service_account(resource, defaults.pull_secrets),
        config_map(resource, tuning),
        pods_service(resource),
        client_service(resource),
    ]
    if is_shared(resource.spec):
        children.append(disruption_budget(resource))
    if resource.spec.cache.ledger.type is LedgerType.PROVISIONED:
        children += [redis_service(resource), redis_stateful_set(resource, images.redis, defaults, at_work=at_work)]
    if resource.spec.index.type is IndexType.STANDALONE:
        children += [milvus_service(resource), milvus_stateful_set(resource, images.milvus, defaults, at_work=at_work)]
    children.append(stateful_set(resource, images.serving, defaults))
    return children
