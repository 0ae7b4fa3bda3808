"""Converts between gRPC messages and the Python values of the clients."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from diffcache.connections import explain_connection
from diffcache_core.generation import ImageFormat, InvalidRequest, RequestChecks, Result, Violation
from diffcache_core.pb import diffcache_pb2 as pb


class GenerationError(Exception):
    """The server refused the request, failed, or could not be reached.

    `code` is the name of the gRPC code. `violations` holds the wrong fields of an INVALID_ARGUMENT. `retry_seconds` is
    the server's advice when it is busy or shutting down. `proxy` is the proxy from the environment, if the server did
    not answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_seconds: float | None = None,
        proxy: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}{f' (by {proxy_advice(proxy)})' if proxy else ''}")
        self.code, self.message, self.violations, self.retry_seconds = code, message, violations, retry_seconds
        self.proxy = proxy


def proxy_advice(proxy: str) -> str:
    return f"the proxy {proxy} of the environment; put the server's host into no_proxy if it needs none"


def raise_violations(checks: RequestChecks) -> None:
    """Raises GenerationError, with the same text as the server, if a check has failed."""
    if checks.violations:
        text = str(InvalidRequest(checks.violations))
        raise GenerationError("INVALID_ARGUMENT", text, tuple(checks.violations))


@dataclass(frozen=True)
class Progress:
    """`step` steps of `steps` are done or skipped."""

    step: int
    steps: int
    steps_skipped: int


@dataclass(frozen=True)
class Generation:
    """A picture, and how it was made."""

    data: bytes  # the encoded picture, as received
    format: ImageFormat
    result: Result
    similarity: float | None  # cosine to the parent's key; None unless APPROXIMATE
    steps: int
    steps_skipped: int
    depth: int  # resumes between this picture and a run from pure noise
    parent_entry_id: str
    entry_id: str  # its entry in the cache; empty if it is not kept
    seed: int
    seconds: Mapping[str, float]  # by phase, and `total`
    request_id: str
    model: str
    flagged: bool  # by the model's safety checker
    prompt_tokens_dropped: int  # tokens beyond the limit of the model's tokenizer; they do not affect the picture
    negative_prompt_tokens_dropped: int

    @cached_property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.data))


def generation_from_pb(message: pb.GenerateResponse) -> Generation:
    seconds = message.seconds
    return Generation(
        data=message.image,
        format=ImageFormat(pb.ImageFormat.Name(message.format).removeprefix("IMAGE_FORMAT_")),
        result=Result(pb.Result.Name(message.result).removeprefix("RESULT_")),
        similarity=message.similarity if message.HasField("similarity") else None,
        steps=message.steps,
        steps_skipped=message.steps_skipped,
        depth=message.depth,
        parent_entry_id=message.parent_entry_id,
        entry_id=message.entry_id,
        seed=message.seed,
        seconds={field.name: getattr(seconds, field.name) for field in seconds.DESCRIPTOR.fields},
        request_id=message.request_id,
        model=message.model,
        flagged=message.flagged,
        prompt_tokens_dropped=message.prompt_tokens_dropped,
        negative_prompt_tokens_dropped=message.negative_prompt_tokens_dropped,
    )


def event_from_pb(message: pb.GenerateStreamResponse) -> Progress | Generation:
    if message.WhichOneof("event") == "generation":
        return generation_from_pb(message.generation)
    progress = message.progress
    return Progress(progress.step, progress.steps, progress.steps_skipped)


LATE = (
    "no picture came in time: allow more seconds (--timeout, in Python timeout), ask for fewer steps, or try again "
    "when the server is less busy"
)


def error_from_rpc(error: grpc.RpcError, proxy: str = "", late: str = LATE) -> GenerationError:
    """Converts an error of gRPC, with the google.rpc details from the server.

    Args:
        error: the error that gRPC raised.
        proxy: the proxy between client and server, or empty.
        late: the message for DEADLINE_EXCEEDED, because that of gRPC does not say what to do.
    """
    violations: tuple[Violation, ...] = ()
    retry_seconds: float | None = None
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    code = error.code().name
    asked = proxy if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else ""
    details = late if code == "DEADLINE_EXCEEDED" else error.details() or ""
    return GenerationError(code, explain_connection(details) or details, violations, retry_seconds, asked)
