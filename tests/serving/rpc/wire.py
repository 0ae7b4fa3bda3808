"""A server and the stubs that call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from diffcache_core.choices import DType
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.serving_config import (
    LevelConfig,
    ModelConfig,
)
from diffcache_serving.server import Server

APPLE = "red apple, noto style"
LIKE_APPLE = "red apple, flat style"
EMOJI = ModelConfig(
    source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=4, guidance=3.0, width=None, height=None
)
LEVELS = (LevelConfig(skip_percent=25, similarity=0.65), LevelConfig(skip_percent=50, similarity=0.8))


@dataclass
class Wire:
    server: Server
    images: Any
    admin: Any
    health: Any
    metrics_url: str

    async def generate(self, prompt: str = APPLE, tenant: str | None = None, **fields: Any) -> pb.GenerateResponse:
        metadata = (("x-diffcache-tenant", tenant),) if tenant is not None else ()
        return await self.images.Generate(pb.GenerateRequest(prompt=prompt, **fields), metadata=metadata)

    async def refused(self, **fields: Any) -> list[str]:
        """The fields that a request is refused for."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.generate(**fields)
        return violated(caught.value)


def violated(error: grpc.aio.AioRpcError) -> list[str]:
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert "Traceback" not in error.details()
    status = rpc_status.from_call(error)
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    return [v.field for v in bad.field_violations]
