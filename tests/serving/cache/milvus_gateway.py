"""A door in front of Milvus Lite that holds to the limits of a real Milvus, and may keep a call waiting."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2

MAX_ROWS = 16_384  # of an answer
MAX_INSERT_BYTES = 64 * 2**20


class MilvusGateway(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """A context manager. Everything that it does not refuse goes on to `target`."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._server = grpc.server(
            ThreadPoolExecutor(4), handlers=[self], options=[("grpc.max_receive_message_length", -1)]
        )
        self.uri = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.deletions_pass = threading.Event()
        self.deletions_pass.set()
        self.deleted_at_once: list[int] = []  # ids in each deletion

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.deletions_pass.set()
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, details: Any) -> Any:
        call = self._channel.unary_unary(details.method)
        name = details.method.rpartition("/")[2]

        def answer(request: bytes, context: Any) -> bytes:
            refusal = self._refusal(name, request)
            if refusal is not None:
                return refusal
            try:
                return bytes(call(request, metadata=_own(context.invocation_metadata()), timeout=60))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(answer)

    def _refusal(self, name: str, request: bytes) -> bytes | None:
        if name == "Search":
            rows = int(_parameter(milvus_pb2.SearchRequest.FromString(request).search_params, "topk"))
            if rows > MAX_ROWS:
                status = _error(f"topk [{rows}] is invalid, it should be in range [1, {MAX_ROWS}]")
                return bytes(milvus_pb2.SearchResults(status=status).SerializeToString())
        elif name == "Insert" and len(request) > MAX_INSERT_BYTES:
            return bytes(milvus_pb2.MutationResult(status=_error("message too large")).SerializeToString())
        elif name == "Delete":
            self.deletions_pass.wait()
            self.deleted_at_once.append(milvus_pb2.DeleteRequest.FromString(request).expr.count(",") + 1)
        return None


def _error(reason: str) -> Any:
    return common_pb2.Status(error_code=common_pb2.UnexpectedError, code=65535, reason=reason)


def _parameter(pairs: Any, key: str) -> str:
    return next((pair.value for pair in pairs if pair.key == key), "0")


def _own(metadata: Any) -> list[tuple[str, str]]:
    """Without what each connection says for itself."""
    return [(key, value) for key, value in metadata if key not in ("user-agent", "host")]
