"""Pictures over TLS, from certificate files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from diffcache import Client, GenerationError
from diffcache_serving.rpc.listen import bind
from diffcache_serving.values.errors import ConfigError


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[str, str]:
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


async def serve(address: str, *files: str) -> tuple[Any, int]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = bind(server, address, *files)
    await server.start()
    return server, port


async def test_who_trusts_the_authority_gets_through(authority: trustme.CA, files: tuple[str, str]) -> None:
    server, port = await serve("localhost:0", *files)
    trusted = authority.cert_pem.bytes()
    async with grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(trusted)) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop(None)


@pytest.mark.parametrize("options", [{}, {"tls": True}], ids=["plaintext", "another authority"])
async def test_others_do_not(options: dict[str, Any], files: tuple[str, str]) -> None:
    import asyncio

    server, port = await serve("localhost:0", *files)

    def generate() -> None:
        with Client(f"localhost:{port}", retry_seconds=0, **options) as client:
            client.generate("cat")

    with pytest.raises(GenerationError) as caught:
        await asyncio.to_thread(generate)
    assert caught.value.code == "UNAVAILABLE"
    await server.stop(None)


@pytest.mark.parametrize("damage", ["missing", "not a certificate"])
async def test_files_that_cannot_be_used_are_named(damage: str, files: tuple[str, str], tmp_path: Path) -> None:
    certificate, key = files
    if damage == "missing":
        certificate = str(tmp_path / "nowhere.pem")
    else:
        Path(certificate).write_text("hello")
    with pytest.raises(ConfigError, match="TLS"):
        await serve("localhost:0", certificate, key)
