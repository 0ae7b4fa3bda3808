"""What a pod needs of the real process: the reason of a failed start, a config that changes under it, a late index."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffcache import Result
from diffcache_core.cache.states import StateKind
from diffcache_core.names import REASON_FILE_ENVIRONMENT
from diffcache_core.serving_config import IndexConfig, ServingConfig
from diffcache_serving.cache.lock import lock_folder
from tests.system.serverprocess import (
    ENVIRONMENT,
    ServerProcess,
    Zygote,
    draw_small,
    free_listen,
    free_ports,
    serving_config,
    wait_for,
)
from tests.system.test_shutdown import in_flight

APPLE, LIKE_APPLE = "red apple, noto style", "a red apple, noto style"


# ---- the reason ------------------------------------------------------------------------------------------------------


def reason_of(config: ServingConfig | str, tmp_path: Path) -> str:
    """What a process that cannot start with this config writes to DIFFCACHE_REASON_FILE."""
    path, reason = tmp_path / "config.json", tmp_path / "termination-log"
    path.write_text(config if isinstance(config, str) else config.model_dump_json())
    ran = subprocess.run(
        [sys.executable, "-m", "diffcache_serving", "--config", str(path)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {REASON_FILE_ENVIRONMENT: str(reason)},
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    text = reason.read_text()
    assert text.partition(": ")[2].strip() in " ".join(ran.stderr.split())
    return text


def test_a_broken_config(tmp_path: Path) -> None:
    assert reason_of("{", tmp_path).startswith("InvalidConfig: ")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    listen = free_listen().model_copy(update={"metrics_port": 1, "metrics_host": "192.0.2.1"})
    config = serving_config(tmp_path / "data", listen=listen)
    assert reason_of(config, tmp_path).startswith("PortTaken: cannot listen on 192.0.2.1:1")


def test_a_volume_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert reason_of(serving_config(tmp_path / "data"), tmp_path).startswith("VolumeUnusable: ")


@pytest.mark.slow  # waits for the folder, a minute
def test_a_volume_in_use(tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    with lock_folder(config.data_dir):
        text = reason_of(config, tmp_path)
    assert text.startswith(
        f"VolumeInUse: {config.data_dir} is in use by process {os.getpid()} on {os.uname().nodename}"
    )


def test_sigterm_ends_a_process_that_does_not_serve_yet(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    with lock_folder(config.data_dir), ServerProcess.forked(zygote, config, tmp_path) as server:
        wait_for("it to wait for the folder", lambda: "waiting for it" in server.stderr())
        server.terminate()
        assert server.wait() == 128 + 15


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": "file:///nowhere"}, "ModelLoadFailed: model file:///nowhere: "),
        ({"require_cuda": True}, "CudaUnavailable: a GPU is asked for and CUDA is not available ("),
    ],
    ids=["model", "cuda"],
)
@pytest.mark.slow  # imports torch in earnest: 8 s
def test_what_is_found_out_late(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    assert reason_of(serving_config(tmp_path / "data", **changes), tmp_path).startswith(reason)


def test_a_gpu_that_is_not_there_ends_the_process(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", require_cuda=True, source="file:///not/even/loaded")
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        if server.wait() == 2 and "no model_index.json" in server.stderr():
            pytest.skip("this machine has a GPU")
        assert "CUDA is not available" in server.stderr()
        assert "spec.serving.gpu.count" in server.stderr()


# ---- the config ------------------------------------------------------------------------------------------------------


def mount(server: ServerProcess, config: ServingConfig, folder: Path) -> None:
    """Replaces the config as a kubelet does: all at once."""
    new = folder / "new.json"
    new.write_text(config.model_dump_json())
    new.rename(folder / f"{server.config.listen.port}.json")


def test_a_new_config_is_taken_over_under_a_generation(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        (ready,) = server.events("ready")
        assert server.metric("diffcache_config_info", revision=ready["config"]) == 1
        answer = in_flight(client, "grinning cat", 600)
        model = config.model.model_copy(update={"steps": 3})
        cache = config.cache.model_copy(update={"capacity_bytes": 2**20})
        mount(server, config.model_copy(update={"model": model, "cache": cache, "batch_max_size": 2}), tmp_path)
        (reloaded,) = wait_for("the new config", lambda: server.events("config reloaded") or None)
        assert not answer.done()
        assert set(reloaded["changed"]) == {"model.steps", "cache.capacity_bytes", "batch_max_size"}
        assert server.metric("diffcache_config_info", revision=reloaded["revision"]) == 1
        assert server.metric("diffcache_capacity_bytes") == 2**20
        assert client.generate("red apple", width=32, height=32).steps == 3
        generation = answer.result(90)
        assert (generation.steps, generation.result) == (600, Result.MISS)
        assert server.stop() == 0
        assert "Traceback" not in server.stderr()


# ---- the model changes -----------------------------------------------------------------------------------------------


def test_a_change_of_the_state_kind_and_back(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", index="Lite")

    def other(kind: StateKind, grace: int) -> ServingConfig:
        cache = config.cache.model_copy(update={"state": kind})
        return config.model_copy(update={"cache": cache, "listen": free_listen(), "space_grace_seconds": grace})

    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        first = draw_small(client, APPLE, seed=1)
        assert server.stop() == 0
    with ServerProcess.forked(zygote, other(StateKind.TRAJECTORY, 3600), tmp_path) as server:
        with server.wait_ready().client() as client:
            assert draw_small(client, APPLE, seed=1).result is Result.MISS
            assert first.entry_id in server.entries()
        assert server.stop() == 0
    with ServerProcess.forked(zygote, other(StateKind.CLEAN, 0), tmp_path) as server:
        with server.wait_ready().client() as client:
            wait_for("the Trajectory entry's purge", lambda: set(server.entries()) == {first.entry_id})
            assert draw_small(client, LIKE_APPLE, seed=2).parent_entry_id == first.entry_id
            assert server.metric("diffcache_evictions_total", reason="space") >= 1
        assert server.stop() == 0


# ---- the index -------------------------------------------------------------------------------------------------------

MILVUS = """
import sys
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, db, port = start_server_in_thread(data_dir=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))
sys.stdin.read()
"""


@contextlib.contextmanager
def milvus_on(port: int, folder: Path) -> Iterator[None]:
    """A Milvus (Lite) that somebody else runs."""
    process = subprocess.Popen([sys.executable, "-c", MILVUS, str(folder), str(port)], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["External", "Standalone"])
def test_a_milvus_that_comes_late(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    (port,) = free_ports(1)
    index = IndexConfig.model_validate({"type": kind, "uri": f"http://127.0.0.1:{port}"})
    config = serving_config(tmp_path / "data").model_copy(update={"index": index})
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        assert server.metric("diffcache_index_up") == 0
        first = draw_small(client, APPLE, seed=1)
        assert first.result is Result.MISS
        assert draw_small(client, LIKE_APPLE, seed=2).parent_entry_id == first.entry_id  # from memory
        with milvus_on(port, tmp_path / "milvus"):
            wait_for("the index to be up", lambda: server.metric("diffcache_index_up") == 1)
            assert draw_small(client, LIKE_APPLE, seed=3).result is Result.APPROXIMATE
            assert server.stop() == 0
