"""grpc.aio on loopback, the bundled model, Milvus Lite as a child process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import Scope
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    ListenConfig,
    ServingConfig,
)
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.lifecycle import drain, start
from diffcache_serving.server import wired
from tests.serving.rpc.wire import EMOJI, LEVELS, Wire


@pytest.fixture(scope="module")
async def served(
    model: LoadedModel, tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> AsyncIterator[Wire]:
    folder = tmp_path_factory.mktemp("server")
    port, admin, metrics = free_ports(3)
    config = ServingConfig(
        name="test",
        data_dir=folder,
        model=EMOJI,
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=2**20, max_entries=1000, state=StateKind.CLEAN, scope=Scope.TENANT, levels=LEVELS
        ),
        index=IndexConfig(type="Lite"),
        listen=ListenConfig(port=port, admin_port=admin, metrics_port=metrics),
    )
    lite = MilvusLite(folder / "milvus")
    async with (
        wired(config, model, lite) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{admin}") as admin_channel,
    ):
        await start(server)
        yield Wire(
            server,
            pb_grpc.ImageGenerationStub(channel),
            pb_grpc.CacheAdminStub(admin_channel),
            health_pb2_grpc.HealthStub(channel),
            f"http://127.0.0.1:{metrics}/metrics",
        )
        await drain(server, 5.0)
    lite.stop()


@pytest.fixture
async def wire(served: Wire) -> Wire:
    """The server of this file's tests, with an empty cache."""
    await served.admin.Purge(pb.PurgeRequest(all=True))
    return served
