"""Every error becomes a gRPC status here, with google.rpc details; clients never see the text of a bug."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from diffcache_core.generation import InvalidRequest, Violation
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_serving.cache.ledger import LedgerUnavailable
from diffcache_serving.engine.engine import DeviceOutOfMemory, EngineStopped
from diffcache_serving.errors import DeviceFailed, NotFinite
from diffcache_serving.metrics import Metrics
from diffcache_serving.queueing import QueueFull

OOM_RETRY_SECONDS = 1.0
DRAIN_RETRY_SECONDS = 5.0  # about what another replica, or this one's successor, needs to be found
LEDGER_RETRY_SECONDS = 5.0

IMAGE_SERVICE = pb.DESCRIPTOR.services_by_name["ImageGeneration"].full_name

log = structlog.get_logger("diffcache.rpc")


class Draining(Exception):
    """The server is shutting down."""


@dataclass(frozen=True)
class Undecodable:
    """A request whose bytes are no message; the handler refuses it instead of grpc's bare INTERNAL."""

    reason: str


def status_of(error: Exception) -> status_pb2.Status | None:
    """The status of an expected error; None for a bug."""
    match error:
        case InvalidRequest():
            details = error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.message)
                    for v in error.violations
                ]
            )
            return _status(code_pb2.INVALID_ARGUMENT, str(error), details)
        case QueueFull():
            return _status(code_pb2.RESOURCE_EXHAUSTED, str(error), _retry(error.retry_seconds))
        case DeviceOutOfMemory():
            return _status(
                code_pb2.RESOURCE_EXHAUSTED,
                "the device is out of memory: try a smaller size, or again when fewer requests run",
                _retry(OOM_RETRY_SECONDS),
            )
        case NotFinite():
            return _status(
                code_pb2.INTERNAL,
                f"{error}, so there is no picture and nothing is kept: try another seed or a lower guidance; if many "
                "requests end so, serve the model with dtype BFloat16 or Float32",
            )
        case Draining() | EngineStopped():
            return _status(
                code_pb2.UNAVAILABLE,
                "the server is shutting down: try again, on another replica",
                _retry(DRAIN_RETRY_SECONDS),
            )
        case DeviceFailed():
            return _status(
                code_pb2.UNAVAILABLE,
                "the device has failed and the server restarts: try again, on another replica",
                _retry(DRAIN_RETRY_SECONDS),
            )
        case LedgerUnavailable():
            return _status(code_pb2.UNAVAILABLE, f"the ledger does not answer: {error}", _retry(LEDGER_RETRY_SECONDS))
    return None


def _status(code: int, text: str, *details: message.Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _retry(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return info


_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Wraps every handler of diffcache's own services."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/diffcache."):
            return handler
        decode = _tolerant(handler.request_deserializer)
        is_counted = details.method.startswith(f"/{IMAGE_SERVICE}/")  # admin calls are no requests for pictures
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, is_counted), decode, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, is_counted), decode, handler.response_serializer
        )

    def _unary(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]], is_counted: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await behaviour(_decoded(request), context)
            except Exception as error:
                await self._abort(context, error, is_counted)

        return call

    def _streaming(
        self, behaviour: Callable[[Any, Any], AsyncIterator[Any]], is_counted: bool
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async for response in behaviour(_decoded(request), context):
                    yield response
            except Exception as error:
                await self._abort(context, error, is_counted)

        return call

    async def _abort(self, context: Any, error: Exception, is_counted: bool) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if is_counted:
            self._metrics.failed()
        status = status_of(error)
        if status is None:
            log.error("a request failed unexpectedly", exc_info=error)
            status = status_pb2.Status(
                code=code_pb2.INTERNAL,
                message="an internal error; the server's log, under this request's id, says more",
            )
        await context.abort(
            _CODES[status.code], status.message, (("grpc-status-details-bin", status.SerializeToString()),)
        )


def _decoded(request: Any) -> Any:
    if isinstance(request, Undecodable):
        raise InvalidRequest([Violation("request", request.reason)])
    return request


def _tolerant(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def call(data: bytes) -> Any:
        try:
            return decode(data)
        except message.DecodeError:
            return Undecodable("is not a valid message of diffcache.v1; text must be UTF-8")

    return call


async def cancel_safely(task: asyncio.Task[Any]) -> None:
    """Ends a task and waits for it, whatever it makes of that."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
