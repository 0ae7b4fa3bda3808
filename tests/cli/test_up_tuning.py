"""`diffcache up` tunes itself: what a user sees of it, over a restart; and what only a cluster has is refused."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diffcache.admin import AdminClient
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.resource.manifest import parse_manifest
from diffcache_core.resource.status import LevelStatus, TuningStatus
from diffcache_core.tuning.record import RECORD_FILE, based_on
from tests.cli.conftest import MANIFEST, Diffcache
from tests.system.serverprocess import wait_for


def manifest(folder: Path, **spec: Any) -> Path:
    """The quickstart's, with other parts."""
    document = yaml.safe_load(MANIFEST.read_text())
    for name, part in spec.items():
        document["spec"][name] = document["spec"].get(name, {}) | part
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@contextlib.contextmanager
def running(path: Path, data: Path, ports: list[int]) -> Iterator[str]:
    """A server of its own; gives the address of its admin endpoint."""
    port, admin_port, metrics_port = ports
    command = [sys.executable, "-m", "diffcache.main", "up", "-f", str(path), "--data-dir", str(data)]
    options = ["--port", str(port), "--admin-port", str(admin_port), "--metrics-port", str(metrics_port)]
    log = data.with_name(f"log-{port}")
    with log.open("w") as file:
        process = subprocess.Popen([*command, *options], stderr=file)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=90)
        yield f"127.0.0.1:{admin_port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()


def record_of(admin: str) -> TuningStatus:
    """As soon as the tuner has looked."""
    with AdminClient(admin) as client:
        text = wait_for("the tuner's first look", lambda: client.call("GetStats", pb.GetStatsRequest()).tuning or None)
    return TuningStatus.model_validate_json(text)


@pytest.mark.timeout(300)
def test_it_follows_its_record_and_tells_it(
    tmp_path: Path, free_ports: Callable[[int], list[int]], diffcache: Diffcache
) -> None:
    data = tmp_path / "data"
    path = manifest(tmp_path, tuning={"mode": "Auto", "capacity": {"min": "8Mi", "max": "512Mi"}})
    digest = based_on(parse_manifest(path.read_text(), str(path)).spec)
    with running(path, data, free_ports(3)) as admin:
        record = record_of(admin)
        assert (record.revision, record.based_on, record.capacity) == (0, digest, "")
        assert "tuning" in diffcache("stats", "--admin", admin).stdout
        assert "(from: model)" in diffcache("stats", "--admin", admin).stdout
    levels = [LevelStatus(skip_percent=10, similarity="0.9")]
    decided = record.model_copy(
        update={"revision": 3, "capacity": "96Mi", "levels": levels, "decision": "Grown: for the test"}
    )
    (data / RECORD_FILE).write_text(decided.model_dump_json(by_alias=True))
    with running(path, data, free_ports(3)) as admin:
        assert record_of(admin).revision == 3
        with AdminClient(admin) as client:
            stats = client.call("GetStats", pb.GetStatsRequest())
        assert (stats.capacity_bytes, stats.levels_source) == (96 * 2**20, "tuner")
