"""Services, and the ServiceAccount of the pods."""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.names import GRPC_PORT
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.metadata import JSON, child, pods_service_name, selector_labels

_PORTS = [
    {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}
]


def service_account(resource: DiffusionCache, pull_secrets: tuple[str, ...]) -> JSON:
    """Makes the cache's own ServiceAccount. It has no rights, because the pods never call the API server. It holds
    their pull secrets."""
    name = resource.metadata.name
    named = [reference.name for reference in resource.spec.serving.pod.image_pull_secrets or []]
    body: JSON = {"automountServiceAccountToken": False}
    if secrets := dict.fromkeys([*named, *pull_secrets]):
        body["imagePullSecrets"] = [{"name": secret} for secret in secrets]
    account = child("v1", "ServiceAccount", resource, name, SERVING, **body)
    if annotations := resource.spec.serving.service_account.annotations:
        account["metadata"]["annotations"] = annotations
    return account


def client_service(resource: DiffusionCache) -> JSON:
    """Makes the Service that clients in the cluster connect to."""
    return service(resource, resource.metadata.name, SERVING, {"type": "ClusterIP"}, _PORTS)


def pods_service(resource: DiffusionCache) -> JSON:
    """Makes a headless Service: it names single pods, and gives all addresses to clients that balance load
    themselves."""
    return service(resource, pods_service_name(resource.metadata.name), SERVING, {"clusterIP": "None"}, _PORTS)


def service(resource: DiffusionCache, name: str, component: str, address: JSON, ports: list[JSON]) -> JSON:
    """Makes a Service for a component's pods, with IPv4 and IPv6 where the cluster has both. `address`: type and
    address fields of its spec."""
    spec = {
        **address,
        "ipFamilyPolicy": "PreferDualStack",
        "selector": selector_labels(resource.metadata.name, component),
        "ports": ports,
    }
    return child("v1", "Service", resource, name, component, spec=spec)
