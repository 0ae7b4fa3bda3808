"""A server on all addresses answers those of IPv4 and of IPv6, and says where in words that clients take."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from diffcache.admin import AdminClient
from diffcache.client import Client
from diffcache_core.net.listening import ANY
from diffcache_core.pb import diffcache_pb2 as pb
from tests.system.serverprocess import ServerProcess, Zygote, draw_small, free_listen, serving_config


def test_a_server_on_all_addresses(zygote: Zygote, tmp_path: Path) -> None:
    listen = free_listen().model_copy(update={"host": ANY, "metrics_host": ANY, "admin_host": "::1"})
    config = serving_config(tmp_path / "data", listen=listen)
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        server.wait_ready()
        for host in ("127.0.0.1", "[::1]"):
            with Client(f"{host}:{listen.port}", retry_seconds=0.0) as client:
                assert draw_small(client, "apple", seed=1).image.width == 32
            with urllib.request.urlopen(f"http://{host}:{listen.metrics_port}/metrics", timeout=30) as answer:
                assert b"diffcache_requests_total" in answer.read()
        with AdminClient(f"[::1]:{listen.admin_port}") as admin:
            assert admin.call("GetStats", pb.GetStatsRequest()).requests == 2
        (ready,) = server.events("ready")
        assert ready["grpc"] == f"[::]:{listen.port}"
        assert ready["admin"] == f"[::1]:{listen.admin_port}"
        assert server.stop() == 0
