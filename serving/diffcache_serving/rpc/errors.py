"""Converts every failure to a gRPC status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf import message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from diffcache_core.generation import InvalidRequest, Violation
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_serving.service.errors import BUG, Failure, Kind, failure_of

IMAGE_SERVICE = pb.DESCRIPTOR.services_by_name["ImageGeneration"].full_name

log = structlog.get_logger("diffcache.rpc")


@dataclass(frozen=True)
class Undecodable:
    """A request whose bytes are not a valid message. The handler then refuses it; grpc itself would answer only
    INTERNAL."""

    reason: str


_KINDS = {
    Kind.INVALID: code_pb2.INVALID_ARGUMENT,
    Kind.EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    Kind.INTERNAL: code_pb2.INTERNAL,
}


def status_of(failure: Failure) -> status_pb2.Status:
    """Returns the status with google.rpc details: the wrong fields, and when to try again."""
    status = status_pb2.Status(code=_KINDS[failure.kind], message=failure.message)
    details: list[message.Message] = []
    if failure.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        fields = [violation(field=v.field, description=v.message) for v in failure.violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if failure.retry_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(failure.retry_seconds * 1e9))
        details.append(retry)
    for detail in details:
        status.details.add().Pack(detail)
    return status


_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Wraps every handler of diffcache's own services."""

    def __init__(self, on_failure: Callable[[], None]) -> None:
        """`on_failure` is called for each failed request for a picture."""
        self._on_failure = on_failure

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/diffcache."):
            return handler
        decode = _tolerant(handler.request_deserializer)
        is_counted = details.method.startswith(f"/{IMAGE_SERVICE}/")  # admin calls do not ask for pictures
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
            self._on_failure()
        failure = failure_of(error)
        if failure is None:
            log.error("a request failed unexpectedly", exc_info=error)
        status = status_of(failure or BUG)
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
