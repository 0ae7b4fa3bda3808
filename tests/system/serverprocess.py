"""Real serving processes for tests: started on free ports, waited for by their gRPC health, always ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from diffcache.admin import AdminClient
from diffcache.client import Client
from diffcache.wire import Generation
from diffcache_core.cache.states import StateKind
from diffcache_core.choices import DType, Scope
from diffcache_core.generation import CacheMode
from diffcache_core.net.listening import join_host_port
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    ListenConfig,
    ModelConfig,
    ServingConfig,
)

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 90.0
"""How long anything may take before a test gives up; four test runs on two cores share it."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
MIB = 2**20

T = TypeVar("T")


def wait_for(what: str, read: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """What `read` returns as soon as it is neither None nor False. Fails, naming `what`, when it never is."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def free_listen() -> ListenConfig:
    port, admin_port, metrics_port = free_ports(3)
    return ListenConfig(port=port, admin_port=admin_port, metrics_port=metrics_port)


def draw_small(
    client: Client, prompt: str, seed: int | None, steps: int = 4, mode: CacheMode = CacheMode.DEFAULT
) -> Generation:
    """A picture in a tenth of a second; from four steps on, a hit skips some."""
    return client.generate(prompt, seed=seed, steps=steps, width=32, height=32, cache_mode=mode)


def serving_config(data_dir: Path, **changes: Any) -> ServingConfig:
    """The bundled model, an index in memory, free ports; `changes` are capacity_bytes, source, index, or fields."""
    values: dict[str, Any] = {
        "name": "test",
        "data_dir": data_dir,
        "model": ModelConfig(
            source=changes.pop("source", "bundled://emoji"),
            scheduler="DDIM",
            dtype=DType.AUTO,
            steps=4,
            guidance=3.0,
            width=None,
            height=None,
        ),
        "batch_max_size": 8,
        "queue_max_steps": 4000,
        "cache": CacheConfig(
            capacity_bytes=changes.pop("capacity_bytes", 64 * MIB),
            max_entries=10_000,
            state=StateKind.CLEAN,
            scope=Scope.TENANT,
            levels=None,
        ),
        "index": IndexConfig(type=changes.pop("index", "Memory")),
        "listen": free_listen(),
        "drain_seconds": 10.0,
    }
    return ServingConfig(**values | changes)


class Running(Protocol):
    """A process that somebody started."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit status, as subprocess has it; None while it runs."""


@dataclass(frozen=True)
class Forked:
    """A process that the zygote forked."""

    pid: int
    zygote: Zygote

    def poll(self) -> int | None:
        return self.zygote.poll(self.pid)


class Zygote:
    """See zygote.py. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[int, int] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def fork(self, config: Path, stderr: Path) -> Forked:
        return Forked(self._ask({"config": str(config), "stderr": str(stderr)}), self)

    def poll(self, pid: int) -> int | None:
        if pid not in self._statuses:
            status = self._ask({"poll": pid})
            if status is None:
                return None
            self._statuses[pid] = status
        return self._statuses[pid]

    def _ask(self, order: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


class ServerProcess:
    """A serving process and how to look at it. Leaving it as a context manager kills it."""

    def __init__(self, process: Running, config: ServingConfig, stderr: Path) -> None:
        self.process, self.config, self._stderr = process, config, stderr

    @classmethod
    def forked(cls, zygote: Zygote, config: ServingConfig, folder: Path) -> Self:
        """Forked with torch imported; its config and standard error lie in `folder`."""
        path, stderr = _files(folder, config)
        return cls(zygote.fork(path, stderr), config, stderr)

    @classmethod
    def executed(cls, config: ServingConfig, folder: Path) -> Self:
        """`python -m diffcache_serving`, from nothing."""
        path, stderr = _files(folder, config)
        command = [sys.executable, "-m", "diffcache_serving", "--config", str(path)]
        with stderr.open("w") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, env=ENVIRONMENT
            )
        return cls(process, config, stderr)

    @classmethod
    def up(cls, manifest: Path, config: ServingConfig, folder: Path) -> Self:
        """`diffcache up` on a manifest; folder and ports are those of `config`."""
        stderr = folder / "up.stderr"
        with stderr.open("w") as file:
            process = subprocess.Popen(
                up_command(manifest, config.data_dir, config.listen),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=ENVIRONMENT,
            )
        return cls(process, config, stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    # ---- its life --------------------------------------------------------------------------------------------------

    def wait_ready(self) -> Self:
        def ready() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.poll()}:\n{self.stderr()}"
            return self.health() == "SERVING"

        wait_for("the server to be ready", ready)
        return self

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, unless it has ended."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Its exit status."""
        return wait_for("the server to end", lambda: _boxed(self.process.poll()))[0]

    def stop(self) -> int:
        self.terminate()
        return self.wait()

    # ---- what it says ----------------------------------------------------------------------------------------------

    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace") if self._stderr.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        found = []
        for line in self.stderr().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == name:
                    found.append(entry)
        return found

    def health(self) -> str:
        """SERVING, NOT_SERVING, or the gRPC code of why there is no answer."""
        with grpc.insecure_channel(self.target) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError as error:
                return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    @contextlib.contextmanager
    def watched_health(self) -> Iterator[list[str]]:
        """A list that grows with each status that the health service reports."""
        seen: list[str] = []
        with grpc.insecure_channel(self.target) as channel:
            answers = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())

            def watch() -> None:
                with contextlib.suppress(grpc.RpcError):
                    for answer in answers:
                        seen.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

            thread = threading.Thread(target=watch)
            thread.start()
            try:
                wait_for("the first health", lambda: bool(seen))
                yield seen
            finally:
                answers.cancel()
                thread.join()

    def metrics_page(self, accept: str = "text/plain") -> str:
        listen = self.config.listen
        url = f"http://{join_host_port(listen.metrics_host, listen.metrics_port)}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=30) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.metrics_page()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        raise AssertionError(f"there is no metric {name} {labels}")

    def milvus_child(self) -> psutil.Process | None:
        """The running Milvus Lite child."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "milvus_lite" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                        return child
        return None

    # ---- how to talk to it -----------------------------------------------------------------------------------------

    @property
    def target(self) -> str:
        return join_host_port(self.config.listen.host, self.config.listen.port)

    @property
    def admin_target(self) -> str:
        return join_host_port(self.config.listen.admin_host, self.config.listen.admin_port)

    def client(self, tenant: str = "default", retry_seconds: float = 0.0) -> Client:
        return Client(self.target, tenant=tenant, retry_seconds=retry_seconds)

    def entries(self, **target: Any) -> dict[str, Any]:
        """What `ListEntries` shows, by id; everything handed to the keeper is written before it answers."""
        with AdminClient(self.admin_target) as admin:
            answer = admin.call("ListEntries", pb.ListEntriesRequest(limit=1000, **target))
        assert answer.total == len(answer.entries)
        return {entry.id: entry for entry in answer.entries}

    def state_file(self, entry_id: str) -> Path:
        """Where the one state of an entry lies."""
        (state,) = self.entries(entry_id=entry_id)[entry_id].states
        return self.config.data_dir / "states" / state.id[:2] / f"{state.id}.safetensors"


def is_gone(process: psutil.Process) -> bool:
    """Ended, whether or not its parent has noticed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def up_command(manifest: Path, data_dir: Path, listen: ListenConfig) -> list[str]:
    command = [str(Path(sys.executable).with_name("diffcache")), "up", "-f", str(manifest), "--data-dir", str(data_dir)]
    ports = {"--port": listen.port, "--admin-port": listen.admin_port, "--metrics-port": listen.metrics_port}
    return command + [str(part) for option in ports.items() for part in option]


def read_ledger(data_dir: Path, scratch: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the ledger, read from a copy: opening a killed process's file would already repair it."""
    scratch.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        source, copy = data_dir / f"ledger.db{suffix}", scratch / f"ledger.db{suffix}"
        copy.unlink(missing_ok=True)
        if source.exists():
            copy.write_bytes(source.read_bytes())
    with contextlib.closing(sqlite3.connect(scratch / "ledger.db")) as db:
        return db.execute(query).fetchall()


def _files(folder: Path, config: ServingConfig) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{config.listen.port}.json"
    path.write_text(config.model_dump_json())
    return path, folder / f"{uuid.uuid4().hex}.stderr"  # ports come back in a long row of servers


def _boxed(value: int | None) -> tuple[int] | None:
    return None if value is None else (value,)  # 0 is a status, and false
