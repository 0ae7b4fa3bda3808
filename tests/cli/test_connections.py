"""A connection that does not come about is said with the remedy: TLS at one end only, wrong certificates, HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import grpc
import pytest
import trustme

from diffcache import AsyncClient, Client, GenerationError
from diffcache.connections import problem_of_authority

Diffcache = Callable[..., CompletedProcess[str]]
AUTHORITY, ANOTHER = trustme.CA(), trustme.CA()
PEM = AUTHORITY.cert_pem.bytes()


@pytest.fixture
def secure() -> Iterator[str]:
    """HOST:PORT of a server that speaks TLS."""
    issued = AUTHORITY.issue_cert("localhost")
    server = grpc.server(ThreadPoolExecutor(1))
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def refusal(server: str, **options: Any) -> str:
    """What both clients are told."""

    async def awaited() -> None:
        async with AsyncClient(server, retry_seconds=0, **options) as client:
            await client.generate("cat")

    with Client(server, retry_seconds=0, **options) as client, pytest.raises(GenerationError) as raised:
        client.generate("cat")
    with pytest.raises(GenerationError) as raised_async:
        asyncio.run(awaited())
    assert raised.value.message == raised_async.value.message
    return raised.value.message


def test_each_end_of_tls_without_the_other(secure: str, up: Any) -> None:
    assert "if it serves TLS, ask for TLS (--tls" in refusal(secure)
    assert "the server does not speak TLS: leave out --tls" in refusal(up.server, tls=True)
    assert "the server does not speak TLS: leave out --tls" in refusal(up.server, ca_certificate=PEM)


def test_a_certificate_that_is_not_trusted(secure: str) -> None:
    assert "not trusted (unable to get local issuer certificate)" in refusal(secure, tls=True)
    assert "give the PEM file of the authority" in refusal(secure, ca_certificate=ANOTHER.cert_pem.bytes().decode())
    by_address = secure.replace("localhost", "127.0.0.1")
    assert "the server's certificate is for another host" in refusal(by_address, ca_certificate=PEM)


def test_the_commands_say_it(secure: str, up: Any, diffcache: Diffcache, tmp_path: Path) -> None:
    metrics = f"127.0.0.1:{up.metrics_port}"
    draw = ["generate", "cat", "-o", str(tmp_path / "x.png"), "--server"]
    for words, told in (
        ([*draw, secure], "if it serves TLS"),
        ([*draw, up.server, "--tls"], "does not speak TLS"),
        ([*draw, metrics], "this is not the gRPC port, which is 50051"),
        (["stats", "--admin", metrics], "this is not the gRPC port"),
        (["stats", "--admin", secure], "perhaps this is not the gRPC port"),
    ):
        done = diffcache(*words)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"\xff\x00", PEM[:200], AUTHORITY.private_key_pem.bytes()], ids=range(5)
)
def test_an_authority_that_is_no_certificate(text: bytes, diffcache: Diffcache, tmp_path: Path) -> None:
    for given in (text, text.decode("latin-1")):
        for make in (Client, AsyncClient):
            with pytest.raises(
                GenerationError, match="ca_certificate: holds no certificate that can be read: give a PEM"
            ):
                make("localhost:1", ca_certificate=given)
    file = tmp_path / "ca.pem"
    file.write_bytes(text)
    done = diffcache("generate", "cat", "-o", str(tmp_path / "x.png"), "--ca", str(file))
    assert done.returncode == 2
    assert "--ca-certificate" in done.stderr
    assert "ca.pem holds no certificate" in done.stderr.replace("\n", " ")


def test_what_stands_beside_certificates_is_no_matter() -> None:
    assert problem_of_authority("Árbol\n".encode() + PEM + b"\n# end\n" + ANOTHER.cert_pem.bytes()) == ""
