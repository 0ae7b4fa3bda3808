"""One real server, started by `diffcache up`, for all tests of the command line and the client."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diffcache.main import main

ROOT = Path(__file__).parents[2]
Diffcache = Callable[..., "subprocess.CompletedProcess[str]"]
MANIFEST = ROOT / "examples" / "quickstart.yaml"


@dataclass(frozen=True)
class Up:
    port: int
    admin_port: int
    metrics_port: int
    data_dir: Path

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"127.0.0.1:{self.admin_port}"


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    port, admin_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "diffcache.main", "up", "-f", str(MANIFEST), "--data-dir", str(folder / "data")]
    options = ["--port", str(port), "--admin-port", str(admin_port), "--metrics-port", str(metrics_port)]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, *options], stderr=file)
    try:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=90)
        channel.close()
        yield Up(port, admin_port, metrics_port, folder / "data")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()


@pytest.fixture
def diffcache(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Diffcache:
    """The `diffcache` command as a user types it, in this process: its imports are paid once."""
    return _program("diffcache", capsys, monkeypatch)


@pytest.fixture
def kubectl_diffcache(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Diffcache:
    """`kubectl diffcache`, likewise."""
    return _program("kubectl-diffcache", capsys, monkeypatch)


def _program(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Diffcache:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        status: object = 0
        try:
            main(list(words), program=name)
        except SystemExit as ended:
            status = ended.code or 0
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(list(words), int(str(status)), out, err)

    return call
