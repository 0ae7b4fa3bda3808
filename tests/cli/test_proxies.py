"""The client goes straight to what is near, and names the proxy that it went through where nobody answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffcache.admin import AdminClient
from diffcache.client import AsyncClient, Client
from diffcache.wire import GenerationError
from diffcache_core.pb import diffcache_pb2 as pb
from tests.serving.cache.proxy_server import RefusingProxy

FAR = "cache.example.com:50051"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> object:
    with RefusingProxy() as refusing:
        monkeypatch.setenv("https_proxy", refusing.url.replace("http://", "http://me:secret@"))
        yield refusing


@pytest.mark.parametrize("server", ["127.0.0.1:1", "dns:///localhost:1", "emoji-pods:1"])
def test_what_is_near_is_not_asked_of_the_proxy(server: str, proxy: RefusingProxy) -> None:
    with Client(server, retry_seconds=0) as client, pytest.raises(GenerationError) as raised:
        client.generate("red apple", timeout=5)
    with AdminClient(server) as admin, pytest.raises(GenerationError):
        admin.call("GetStats", pb.GetStatsRequest())
    assert proxy.asked == []
    assert raised.value.proxy == ""


def test_the_proxy_is_named(proxy: RefusingProxy) -> None:
    with Client(FAR, retry_seconds=0) as client, pytest.raises(GenerationError, match="no_proxy") as raised:
        client.generate("red apple", timeout=20)
    assert raised.value.proxy == proxy.url
    assert f"CONNECT {FAR}" in proxy.asked
    assert "secret" not in str(raised.value)


async def test_the_async_client_names_it_too(proxy: RefusingProxy) -> None:
    async with AsyncClient(FAR, retry_seconds=0) as client:
        with pytest.raises(GenerationError, match=f"by the proxy {proxy.url} of the environment"):
            await client.generate("red apple", timeout=20)


def test_the_command_names_it_in_one_line(proxy: RefusingProxy, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffcache.main", "generate", "red apple", "--server", FAR]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1, run.stderr
    line = run.stderr
    assert line.startswith(f"diffcache: no server answers through the proxy {proxy.url} of the environment;")
