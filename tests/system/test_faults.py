"""What happens to requests when state, index, disk or ledger are not what they should be: they are answered."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from diffcache import CacheMode, Client, Generation, Result
from diffcache_serving.cache.lock import FolderInUse, lock_folder
from tests.system.serverprocess import (
    ServerProcess,
    Zygote,
    draw_small,
    free_listen,
    is_gone,
    serving_config,
    wait_for,
)

PROMPT, NEAR = "red apple, noto style", "a red apple, noto style"


def draw(client: Client, prompt: str = PROMPT, seed: int = 1, mode: CacheMode = CacheMode.DEFAULT) -> Generation:
    return draw_small(client, prompt, seed, mode=mode)


def dropped(server: ServerProcess, reason: str) -> float:
    return server.metric("diffcache_states_dropped_total", reason=reason)


# ---- states --------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def fill_with_noise(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


DAMAGES = [(Path.unlink, "missing"), (truncate, "damaged"), (empty, "damaged"), (flip_a_bit, "damaged")]
DAMAGES += [(fill_with_noise, "damaged")]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_state_is_a_miss_with_the_right_picture(
    server: ServerProcess, damage: Callable[[Path], None], reason: str
) -> None:
    tenant = damage.__name__.replace("_", "-")
    with server.client(tenant) as client:
        first = draw(client)
        damage(server.state_file(first.entry_id))
        before = dropped(server, reason)
        again = draw(client)
        assert (again.result, again.data) == (Result.MISS, first.data)
        assert dropped(server, reason) > before
        wait_for("the dead entry to leave the list", lambda: set(server.entries(tenant=tenant)) == {again.entry_id})
        assert draw(client).result is Result.EXACT


def test_lost_states_are_counted_once(server: ServerProcess) -> None:
    with server.client("once") as client:
        before = dropped(server, "missing")
        for seed in range(5):  # the exact tier and the search both come upon it
            server.state_file(draw(client, seed=seed, mode=CacheMode.REFRESH).entry_id).unlink()
            draw(client, seed=seed)
        assert dropped(server, "missing") == before + 5


def test_swapped_states_are_both_dropped(server: ServerProcess) -> None:
    with server.client("swapped") as client:
        first, other = draw(client), draw(client, "pizza, flat style")
        one, two = server.state_file(first.entry_id), server.state_file(other.entry_id)
        bytes_of_one = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(bytes_of_one)
        before = dropped(server, "damaged")
        for generation, prompt in ((first, PROMPT), (other, "pizza, flat style")):
            again = draw(client, prompt)
            assert (again.result, again.data) == (Result.MISS, generation.data)
        assert dropped(server, "damaged") >= before + 2


def test_the_next_candidate_takes_over_from_a_damaged_one(server: ServerProcess) -> None:
    with server.client("only-b") as client:
        draw(client, NEAR, seed=2)
        expected = draw(client, seed=3)
        assert expected.result is Result.APPROXIMATE
    with server.client("a-and-b") as client:
        draw(client, NEAR, seed=2)
        nearest = draw(client, seed=1, mode=CacheMode.REFRESH)
        truncate(server.state_file(nearest.entry_id))
        answer = draw(client, seed=3)
        assert answer.result is Result.APPROXIMATE
        assert answer.similarity == pytest.approx(expected.similarity, abs=1e-5)
        assert answer.data == expected.data


# ---- index ---------------------------------------------------------------------------------------------------------


def rows_in_milvus(server: ServerProcess) -> int:
    """Asked by a client of its own."""
    child = server.milvus_child()
    if child is None:
        return 0
    ports = [c.laddr.port for c in child.net_connections("tcp") if c.status == "LISTEN"]
    client = MilvusClient(f"http://127.0.0.1:{ports[0]}", timeout=10)
    try:
        rows = [
            client.query(name, filter='entry_id > ""', output_fields=["count(*)"]) for name in client.list_collections()
        ]
        return sum(answer[0]["count(*)"] for answer in rows)
    finally:
        client.close()


def kill_milvus(server: ServerProcess) -> int:
    child = server.milvus_child()
    assert child is not None
    child.kill()
    wait_for("Milvus Lite to be gone", lambda: is_gone(child))
    return child.pid


def test_requests_go_on_while_milvus_lite_is_dead_and_it_comes_back(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", index="Lite")
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        first = draw(client)
        assert server.stop() == 0  # so that its row is in Milvus, and not only in memory
    config = config.model_copy(update={"listen": free_listen()})
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        assert rows_in_milvus(server) == 1
        dead = kill_milvus(server)

        def near() -> Generation:
            return draw(client, NEAR, seed=2, mode=CacheMode.READ_ONLY)

        during = near()
        assert during.result is Result.MISS
        assert during.data == draw(client, NEAR, seed=2, mode=CacheMode.BYPASS).data
        assert server.metric("diffcache_index_errors_total", op="look_up") >= 1

        wait_for("a hit from Milvus again", lambda: near().parent_entry_id == first.entry_id)
        child = server.milvus_child()
        assert child is not None
        assert child.pid != dead
        assert server.metric("diffcache_requests_total", result="error") == 0
        assert server.stop() == 0
        assert "Traceback" not in server.stderr()


# ---- disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 16 MiB and no more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a size-limited folder needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room there is, to the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return filler


@pytest.mark.parametrize("index", ["Memory", "Lite"])
def test_a_full_disk_stops_keeping_and_nothing_else(
    zygote: Zygote, tmp_path: Path, small_disk: Path, index: str
) -> None:
    config = serving_config(small_disk / "data", index=index)
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        before = draw(client)
        kept = server.entries()
        filler = fill(small_disk)
        for seed in range(10, 14):
            unkept = draw(client, "pizza, flat style", seed=seed)
            assert unkept.data == draw(client, "pizza, flat style", seed=seed, mode=CacheMode.BYPASS).data
            assert set(server.entries()) == set(kept)
            assert draw(client).data == before.data
        assert dropped(server, "disk") == 4
        assert dropped(server, "error") == 0
        files = [path for path in (config.data_dir / "states").rglob("*") if path.is_file()]
        assert len(files) == len(kept), "what could not be written whole takes no room"

        filler.unlink()
        after = draw(client, "pizza, flat style", seed=10)
        assert after.entry_id in server.entries()
        assert draw(client, "pizza, flat style", seed=10).result is Result.EXACT
        assert server.metric("diffcache_requests_total", result="error") == 0
        assert server.stop() == 0
        assert "Traceback" not in server.stderr()


# ---- ledger --------------------------------------------------------------------------------------------------------


def test_a_ledger_of_a_newer_format_is_left_alone(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    config.data_dir.mkdir()
    ledger = config.data_dir / "ledger.db"
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        db.executescript("CREATE TABLE precious (x); PRAGMA user_version = 99;")
    before = ledger.read_bytes()
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        assert server.wait() == 2
        advice = r"start the newer version again, or choose another folder"
        assert re.search(rf"diffcache: .*ledger\.db has format 99, this diffcache knows \d+: {advice}", server.stderr())
        assert "Traceback" not in server.stderr()
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("damage", [fill_with_noise, truncate], ids=["noise", "truncated"])
def test_a_damaged_ledger_is_set_aside(zygote: Zygote, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    config = serving_config(tmp_path / "data")
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        first = draw(client)
        assert server.stop() == 0
    damage(config.data_dir / "ledger.db")
    config = config.model_copy(update={"listen": free_listen()})
    with ServerProcess.forked(zygote, config, tmp_path) as server, server.wait_ready().client() as client:
        (ready,) = server.events("ready")
        assert (ready["entries"], ready["files_swept"]) == (0, 1)  # bytes that no ledger knows are no use to anybody
        aside = list(config.data_dir.glob("ledger.db.aside-*"))
        assert len(aside) == 1
        assert f"is damaged: kept as {aside[0].name}, a new ledger begins" in server.stderr()
        again = draw(client)
        assert (again.result, again.data) == (Result.MISS, first.data)
        assert draw(client).result is Result.EXACT


# ---- two processes -------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_waited_for_and_then_refused_naming_its_holder(tmp_path: Path) -> None:
    holders: list[str] = []
    with lock_folder(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()} on .*--data-dir"):
        lock_folder(tmp_path, wait=0.0, on_wait=holders.append)
    assert holders == [f"process {os.getpid()} on {os.uname().nodename}"]
    lock_folder(tmp_path, wait=0.0).close()


def test_a_second_process_waits_for_the_first(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data")
    with ServerProcess.forked(zygote, config, tmp_path) as first, first.wait_ready().client() as client:
        drawn = draw(client)
        second_config = config.model_copy(update={"listen": free_listen()})
        with ServerProcess.forked(zygote, second_config, tmp_path) as second:
            line = f"not ready, {config.data_dir} is held by process {first.process.pid} on "
            wait_for("the second process to say who holds the folder", lambda: line in second.stderr())
            assert second.health() == "UNAVAILABLE"
            assert second.process.poll() is None
            assert draw(client).data == drawn.data
            assert first.stop() == 0
            second.wait_ready()
            with second.client() as client_of_second:
                assert draw(client_of_second).result is Result.EXACT
