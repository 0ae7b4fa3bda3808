"""Decides which hosts are reached without a proxy: those on this machine or in the same cluster. Pure.

A proxy from the environment is for hosts outside: it does not know the short names of a cluster, and often cannot carry
gRPC. Our own calls follow these rules; downloads from a hub use the proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from diffcache_core.foreign import without_credentials

GRPC_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables in which gRPC looks for a proxy; the first that is set counts. gRPC only reads these lower-case names."""

GRPC_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

NO_PROXY_OPTION = ("grpc.enable_http_proxy", 0)
"""Option of a gRPC channel that connects to its server without a proxy."""

_RESOLVER = re.compile(r"^(dns:(//[^/]*/)?|ipv[46]:|https?://)")
_NEAR = (".localhost", ".local", ".svc", ".internal")


def host_of(address: str) -> str:
    """Returns the host of HOST:PORT, of a URL or of a gRPC target; of several addresses the first."""
    place = _RESOLVER.sub("", address.strip()).split(",")[0]
    place = re.split(r"[/?#]", place)[0].rpartition("@")[2]
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.count(":") > 1 else place.partition(":")[0]


def is_near(host: str) -> bool:
    """Returns whether a host is this machine, in the same cluster, or in a private network.

    NAME, NAME.NAMESPACE.svc and longer names after .svc are in the cluster. NAME.NAMESPACE may be a public domain, so
    it counts as outside: name it in `no_proxy`, or write `.svc` after it.
    """
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return "." not in name or name.endswith(_NEAR) or ".svc." in name
    return address.is_private or address.is_loopback or address.is_link_local


def grpc_proxy(host: str, environment: Mapping[str, str]) -> str:
    """Returns the proxy that gRPC uses for a host, without user and password; empty if it uses none."""
    if is_near(host):
        return ""
    proxy = next((environment[name] for name in GRPC_VARIABLES if environment.get(name)), "")
    exceptions = next((environment[name] for name in GRPC_EXCEPTIONS if environment.get(name)), "")
    if any(entry and host.lower().endswith(entry) for entry in re.split(r"[,\s]+", exceptions.lower())):
        return ""
    return without_credentials(proxy)
