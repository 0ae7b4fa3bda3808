"""The client of `CacheAdmin` for the command line."""

from __future__ import annotations

import os
from typing import Any, Self

import grpc

from diffcache.address import checked_address
from diffcache.wire import error_from_rpc
from diffcache_core.names import ADMIN_PORT
from diffcache_core.net.proxies import NO_PROXY_OPTION, grpc_proxy, host_of, is_near
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc

TIMEOUT = 30.0
"""Timeout of one call in seconds. A purge of a large cache takes a few seconds; a higher value only delays the error if
a server hangs."""
_LATE = f"the server has not answered within {TIMEOUT:g} s: try again when it is less busy, or see its log"


class AdminClient:
    """Calls methods of CacheAdmin by name. A context manager."""

    def __init__(self, target: str) -> None:
        """Raises GenerationError if `target` is not a valid address."""
        target = checked_address(target, "admin", ADMIN_PORT)
        options: list[tuple[str, int]] = [("grpc.max_receive_message_length", 64 * 2**20)]
        if is_near(host_of(target)):
            options.append(NO_PROXY_OPTION)
        self._proxy = grpc_proxy(host_of(target), os.environ)
        self._channel = grpc.insecure_channel(target, options=options)
        self._stub = pb_grpc.CacheAdminStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()

    def call(self, method: str, request: Any) -> Any:
        """Calls `method` and returns its answer. Raises GenerationError if the call fails."""
        try:
            return getattr(self._stub, method)(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._proxy, _LATE) from None
