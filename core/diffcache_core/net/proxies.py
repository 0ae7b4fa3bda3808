"""Whom we reach without a proxy: what is on this machine or in the same cluster. Pure.

A proxy of the environment is for what lies outside: it does not know the short names of a cluster, and often does not
carry gRPC. Our own calls go by these rules; downloads from a hub are left to the proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from diffcache_core.foreign import without_credentials

GRPC_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where gRPC looks for a proxy, the first that is set counts; it knows no capital letters."""

GRPC_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

NO_PROXY_OPTION = ("grpc.enable_http_proxy", 0)
"""Of a gRPC channel that goes straight to its server."""

_RESOLVER = re.compile(r"^(dns:(//[^/]*/)?|ipv[46]:|https?://)")
_NEAR = (".localhost", ".local", ".svc", ".internal")


def host_of(address: str) -> str:
    """Of HOST:PORT, of a URL, or of one of gRPC's targets; of several addresses the first."""
    place = _RESOLVER.sub("", address.strip()).split(",")[0]
    place = re.split(r"[/?#]", place)[0].rpartition("@")[2]
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.count(":") > 1 else place.partition(":")[0]


def is_near(host: str) -> bool:
    """Whether a host is this machine, in the same cluster, or of a private network.

    NAME, NAME.NAMESPACE.svc and what follows it are a cluster's. NAME.NAMESPACE may be a domain of the world, so it is
    not: name it in `no_proxy`, or write `.svc` after it.
    """
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return "." not in name or name.endswith(_NEAR) or ".svc." in name
    return address.is_private or address.is_loopback or address.is_link_local


def grpc_proxy(host: str, environment: Mapping[str, str]) -> str:
    """The proxy that gRPC asks for a host, without user and password; empty if it asks none."""
    if is_near(host):
        return ""
    proxy = next((environment[name] for name in GRPC_VARIABLES if environment.get(name)), "")
    exceptions = next((environment[name] for name in GRPC_EXCEPTIONS if environment.get(name)), "")
    if any(entry and host.lower().endswith(entry) for entry in re.split(r"[,\s]+", exceptions.lower())):
        return ""
    return without_credentials(proxy)
