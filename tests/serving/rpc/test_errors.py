"""The table from errors to statuses, row by row."""

from __future__ import annotations

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from diffcache_core.generation import InvalidRequest, Violation
from diffcache_serving.engine.engine import DeviceOutOfMemory, EngineStopped
from diffcache_serving.queueing import QueueFull
from diffcache_serving.rpc.errors import status_of
from diffcache_serving.service.errors import Draining, failure_of
from diffcache_serving.values.errors import DeviceFailed, NotFinite


def status_after(error: Exception) -> status_pb2.Status:
    failure = failure_of(error)
    assert failure is not None
    return status_of(failure)


def test_invalid_requests_carry_each_violation() -> None:
    status = status_after(InvalidRequest([Violation("steps", "too many"), Violation("prompt", "empty")]))
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert [(v.field, v.description) for v in bad.field_violations] == [("steps", "too many"), ("prompt", "empty")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull("full", 1.5), code_pb2.RESOURCE_EXHAUSTED),
        (DeviceOutOfMemory("oom"), code_pb2.RESOURCE_EXHAUSTED),
        (Draining(), code_pb2.UNAVAILABLE),
        (EngineStopped(), code_pb2.UNAVAILABLE),
        (DeviceFailed("CUDA error"), code_pb2.UNAVAILABLE),
    ],
)
def test_what_passes_says_when_to_come_back(error: Exception, code: int) -> None:
    status = status_after(error)
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert status.code == code
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0


def test_a_bug_has_no_status_of_its_own() -> None:
    assert failure_of(ZeroDivisionError("secret")) is None


def test_an_encoding_that_is_not_finite_has_nothing_to_do_with_seed_or_guidance() -> None:
    message = status_after(NotFinite("encoding")).message
    assert "word the prompt or the negative prompt otherwise" in message
    assert "seed" not in message


def test_what_is_not_finite_says_what_helps() -> None:
    status = status_after(NotFinite("latent"))
    assert status.code == code_pb2.INTERNAL
    assert "not finite" in status.message
    assert "BFloat16" in status.message
