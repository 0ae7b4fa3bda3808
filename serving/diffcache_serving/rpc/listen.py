"""Builds the two gRPC servers and binds them to their addresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from diffcache_core.os_errors import explain_os_error
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_serving.rpc.errors import IMAGE_SERVICE, ErrorInterceptor
from diffcache_serving.rpc.servicer import CacheAdmin, ImageGeneration
from diffcache_serving.values.errors import ConfigError, PortTaken

ADMIN_SERVICE = pb.DESCRIPTOR.services_by_name["CacheAdmin"].full_name

CONNECTION_AGE_MILLISECONDS = 30_000
"""After this time a client has to reconnect; running calls continue. Only a reconnect lets a client that balances its
own load learn of a new pod, and lets a client behind the single address of a Service reach it."""

PING_MILLISECONDS = 1000
"""Minimum interval between two pings of a client. The server closes the connection after three pings that come sooner.
gRPC's default of five minutes would cut off, in the middle of a picture, every client that pings each 10 s because of
its load balancer. Clients may ping every 5 s; the rest is a margin for delayed pings that arrive close together. With
a lower value a client can cause more load by pings alone."""

HANDSHAKE_MILLISECONDS = 5000
"""Time in which a new connection must start TLS or HTTP/2. A silent connection delays the stop of the server, by
gRPC's default for two minutes. A lower value cuts off clients on very slow networks."""


def build_servers(images: ImageGeneration, admin: CacheAdmin, on_failure: Callable[[], None]) -> tuple[Any, Any, Any]:
    """Returns the picture server, the admin server, and the health service of both.

    `on_failure` is called for each failed request for a picture.
    """
    options = [
        ("grpc.so_reuseport", 0),  # otherwise two servers would share one port silently
        ("grpc.max_connection_age_ms", CONNECTION_AGE_MILLISECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_MILLISECONDS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),  # load balancers close connections that are silent between calls
    ]
    servicer = health.aio.HealthServicer()
    servers = []
    for add, implementation, name in (
        (pb_grpc.add_ImageGenerationServicer_to_server, images, IMAGE_SERVICE),
        (pb_grpc.add_CacheAdminServicer_to_server, admin, ADMIN_SERVICE),
    ):
        server = grpc.aio.server(interceptors=[ErrorInterceptor(on_failure)], options=options)
        add(implementation, server)  # type: ignore[no-untyped-call]  # generated
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        servers.append(server)
    return servers[0], servers[1], servicer


def bind(server: Any, address: str, certificate: str = "", key: str = "") -> int:
    """Binds `server` to `address`, with TLS if `certificate` is given, and returns the port.

    `certificate` and `key` are paths of PEM files. Raises PortTaken or ConfigError.
    """
    try:
        if not certificate:
            return int(server.add_insecure_port(address))
        pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
    except OSError as error:
        raise ConfigError(f"TLS: {explain_os_error(error, certificate)}") from None
    except RuntimeError:
        text = f"cannot listen on {address}: it is taken or not an address of this machine"
        if not certificate:
            raise PortTaken(text) from None
        pem = f"{certificate} and {key} are not a certificate and its key in PEM"
        raise ConfigError(f"{text}, or TLS: {pem}") from None
