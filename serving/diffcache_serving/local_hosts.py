"""Decides whether a host is reached without a proxy, also if its name alone does not tell."""

from __future__ import annotations

import os
import socket

from diffcache_core.net.proxies import is_near

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


def is_local(host: str) -> bool:
    """Returns whether `is_near` holds for the host, or for all addresses of a host NAME.NAMESPACE.

    May block on DNS, but only if a proxy is set.
    """
    if is_near(host):
        return True
    is_proxied = any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES)
    if not is_proxied or host.count(".") != 1:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(is_near(str(address[0])) for *_, address in found)
