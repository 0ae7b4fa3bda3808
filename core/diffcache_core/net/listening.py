"""Listens on IPv4 and IPv6."""

from __future__ import annotations

import socket

ANY = "::"
"""All IPv6 and IPv4 addresses of this machine; only IPv4 if the kernel has no IPv6."""


def listen_on_all(port: int) -> socket.socket:
    """Returns a listening socket for all addresses of this machine. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server((ANY, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def join_host_port(host: str, port: int) -> str:
    """Returns HOST:PORT as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
