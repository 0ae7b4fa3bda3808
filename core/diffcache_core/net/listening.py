"""Where a process listens: on IPv4 and IPv6 alike."""

from __future__ import annotations

import socket

ANY = "::"
"""All addresses of this machine, of IPv6 and of IPv4; of IPv4 only, where the kernel has no IPv6."""


def listen_on_all(port: int) -> socket.socket:
    """A listening socket for connections to any address of this machine. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server((ANY, port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def join_host_port(host: str, port: int) -> str:
    """As an address stands in a URL: an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
