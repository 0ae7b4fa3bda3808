"""The clients of `ImageGeneration`, blocking and for asyncio, with the same methods. They retry only what a pod that
ends answers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from diffcache.address import checked_address
from diffcache.connections import problem_of_authority
from diffcache.options import GenerateOptions, build_request, check_timeout
from diffcache.wire import (
    Generation,
    GenerationError,
    Progress,
    error_from_rpc,
    event_from_pb,
    generation_from_pb,
    raise_violations,
)
from diffcache_core.foreign import quoted
from diffcache_core.generation import RequestChecks
from diffcache_core.names import DEFAULT_TENANT, GRPC_PORT, TENANT_METADATA
from diffcache_core.net.proxies import NO_PROXY_OPTION, grpc_proxy, host_of, is_near
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc

RETRY_SECONDS = 30.0
"""How long the codes in `_RETRIED` are retried. A draining pod is replaced within this time."""

_RETRIED = ("UNAVAILABLE", "CANCELLED")
"""Other errors are never retried, because the server may already have run the steps of the picture. CANCELLED is what
gRPC's server answers to requests that reach it while it stops (https://github.com/grpc/grpc/issues/41785)."""

_CLOSED = "Channel closed!"
"""What gRPC says, also with CANCELLED, when another thread closes the client during a call."""

MAX_IMAGE_BYTES = 64 * 2**20  # the default of grpc, 4 MiB, is less than a 2048 x 2048 PNG

_SEVERAL = ("dns:", "ipv4:", "ipv6:")
"""Prefixes of targets that name all pods of a cache. Requests take turns over the addresses that answer."""
_TURNS = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
_LOOK_UP_MILLISECONDS = 1000
"""Minimum time between two DNS look-ups, which a lost connection causes. The default of grpc, 30 s, is as long as our
retries."""
_RECONNECT_MILLISECONDS = 5000
"""Maximum wait between two attempts to connect. The default of grpc, two minutes, is longer than our retries."""


class _Retries:
    """Computes the waits between the tries of one call."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._wait = 0.1

    def after(self, error: GenerationError) -> float:
        """Returns the seconds until the next try. Raises `error` if there is no further try."""
        wait = self._wait * random.uniform(0.5, 1.5)  # so that clients of one lost pod do not all retry together
        is_retried = error.code in _RETRIED and error.message != _CLOSED
        if not is_retried or time.monotonic() + wait > self._deadline:
            raise error
        self._wait = min(2 * self._wait, 2.0)
        return wait


@dataclass(frozen=True)
class _Target:
    """The checked arguments of the clients. Raises GenerationError for errors that gRPC would not explain well."""

    server: str
    tenant: str
    tls: bool
    ca_certificate: bytes | str | None
    retry_seconds: float

    def __post_init__(self) -> None:
        for name, kinds, wanted in (
            ("server", str, "HOST:PORT"),
            ("tenant", str, "text"),
            ("tls", bool, "True or False"),
            ("ca_certificate", bytes | str | None, "the text of a PEM file"),
            ("retry_seconds", int | float, "seconds"),
        ):
            if not isinstance(getattr(self, name), kinds):
                shown = quoted(repr(getattr(self, name)))
                raise GenerationError("INVALID_ARGUMENT", f"{name}: must be {wanted}, is {shown}")
        checks = RequestChecks()
        checks.value(TENANT_METADATA, self.tenant)
        raise_violations(checks)
        if self._authority is not None and (problem := problem_of_authority(self._authority)):
            raise GenerationError("INVALID_ARGUMENT", f"ca_certificate: {problem}")

    @property
    def _authority(self) -> bytes | None:
        given = self.ca_certificate
        return given.encode(errors="replace") if isinstance(given, str) else given

    def open(self, module: Any) -> Any:
        """Returns a channel. `module` is `grpc` or `grpc.aio`."""
        server = checked_address(self.server, "server", GRPC_PORT)
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MAX_IMAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
            ("grpc.dns_min_time_between_resolutions_ms", _LOOK_UP_MILLISECONDS),
        ]
        if is_near(host_of(server)):
            options.append(NO_PROXY_OPTION)
        if server.startswith(_SEVERAL):
            options.append(("grpc.service_config", _TURNS))
        if not self.tls and self._authority is None:
            return module.insecure_channel(server, options=options)
        return module.secure_channel(server, grpc.ssl_channel_credentials(self._authority), options=options)

    @property
    def proxy(self) -> str:
        """Returns the proxy that the environment sets for this server, or an empty string."""
        return grpc_proxy(host_of(self.server), os.environ)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((TENANT_METADATA, self.tenant),)


class Client:
    """Generates pictures. A context manager. Threads may share it.

    Args:
        server: HOST:PORT of a gRPC endpoint, without http://; or dns:///NAME-pods:50051 for all pods of a
            DiffusionCache, in turn.
        tenant: sent as metadata. Do not set it if an authenticating proxy does.
        tls: encrypt, and verify the server with `ca_certificate` (PEM) or with the system's authorities.
        retry_seconds: how long a call is retried that a pod does not take because it ends. If there are several pods,
            it goes to another one.

    Raises GenerationError if an argument is wrong.
    """

    def __init__(
        self,
        server: str,
        *,
        tenant: str = DEFAULT_TENANT,
        tls: bool = False,
        ca_certificate: bytes | str | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        target = _Target(server, tenant, tls, ca_certificate, retry_seconds)
        self._channel = target.open(grpc)
        self._stub = pb_grpc.ImageGenerationStub(self._channel)
        self._metadata, self._proxy = target.metadata, target.proxy
        self._retry_seconds = retry_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def generate(self, prompt: str, *, timeout: float | None = None, **options: Unpack[GenerateOptions]) -> Generation:
        """Returns one picture. `timeout` is in seconds, for each try.

        Raises GenerationError, or TypeError for an unknown option.
        """
        check_timeout(timeout)
        message = build_request(prompt, options)
        retries = _Retries(self._retry_seconds)
        while True:
            try:
                return generation_from_pb(self._stub.Generate(message, timeout=timeout, metadata=self._metadata))
            except grpc.RpcError as error:
                time.sleep(retries.after(error_from_rpc(error, self._proxy)))

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Iterator[Progress | Generation]:
        """Yields the progress after each step, then the picture. Raises the same errors as `generate`; errors in the
        options are raised at once."""
        check_timeout(timeout)
        return self._stream(pb.GenerateStreamRequest(request=build_request(prompt, options)), timeout)

    def _stream(self, message: pb.GenerateStreamRequest, timeout: float | None) -> Iterator[Progress | Generation]:
        retries = _Retries(self._retry_seconds)
        has_begun = False  # if True, there is no retry: it would start from the beginning and run all steps again
        while True:
            call = self._stub.GenerateStream(message, timeout=timeout, metadata=self._metadata)
            try:
                for event in call:
                    has_begun = True
                    yield event_from_pb(event)
                return
            except grpc.RpcError as error:
                if has_begun:
                    raise error_from_rpc(error, self._proxy) from None
                time.sleep(retries.after(error_from_rpc(error, self._proxy)))
            finally:
                call.cancel()  # ends the run if the caller stops early; does nothing after the end


class AsyncClient:
    """The same as Client for asyncio: `async with`, `await generate`, `async for event in stream`."""

    def __init__(
        self,
        server: str,
        *,
        tenant: str = DEFAULT_TENANT,
        tls: bool = False,
        ca_certificate: bytes | str | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        target = _Target(server, tenant, tls, ca_certificate, retry_seconds)
        self._channel = target.open(grpc.aio)
        self._stub = pb_grpc.ImageGenerationStub(self._channel)
        self._metadata, self._proxy = target.metadata, target.proxy
        self._retry_seconds = retry_seconds

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def generate(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Returns one picture. `timeout` is in seconds, for each try.

        Raises GenerationError, or TypeError for an unknown option.
        """
        check_timeout(timeout)
        message = build_request(prompt, options)
        retries = _Retries(self._retry_seconds)
        while True:
            try:
                return generation_from_pb(await self._stub.Generate(message, timeout=timeout, metadata=self._metadata))
            except grpc.RpcError as error:
                await asyncio.sleep(retries.after(error_from_rpc(error, self._proxy)))

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGenerator[Progress | Generation, None]:
        """Yields the progress after each step, then the picture. Raises the same errors as `generate`; errors in the
        options are raised at once."""
        check_timeout(timeout)
        return self._stream(pb.GenerateStreamRequest(request=build_request(prompt, options)), timeout)

    async def _stream(
        self, message: pb.GenerateStreamRequest, timeout: float | None
    ) -> AsyncGenerator[Progress | Generation, None]:
        retries = _Retries(self._retry_seconds)
        has_begun = False
        while True:
            call = self._stub.GenerateStream(message, timeout=timeout, metadata=self._metadata)
            try:
                async for event in call:
                    has_begun = True
                    yield event_from_pb(event)
                return
            except grpc.RpcError as error:
                if has_begun:
                    raise error_from_rpc(error, self._proxy) from None
                await asyncio.sleep(retries.after(error_from_rpc(error, self._proxy)))
            finally:
                call.cancel()  # ends the run if the caller stops early; does nothing after the end
