"""kill -9 of the server while it writes: what the next start serves is right, and it says what it dropped."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diffcache import Generation, GenerationError, Result
from tests.system.serverprocess import (
    PATIENCE_SECONDS,
    ServerProcess,
    Zygote,
    draw_small,
    free_listen,
    is_gone,
    read_ledger,
    serving_config,
    wait_for,
)

CAPACITY = 16 * 4096  # a state of this size takes one block: 16 entries, so nearly every write also evicts
THINGS = ("red apple", "grinning cat", "pizza", "orange heart", "dog face", "doughnut", "tiger face", "rocket")
STYLES = ("noto style", "flat style")


@dataclass
class Writers:
    """Two clients that draw without end until the server is gone, and every answer that they got."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    answers: dict[str, tuple[str, Generation]] = field(default_factory=dict)  # by entry id: prompt and answer
    received: int = 0

    @contextlib.contextmanager
    def drawing(self, server: ServerProcess) -> Iterator[None]:
        self.received = 0
        threads = [threading.Thread(target=self._draw, args=(server,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            server.kill()
            for thread in threads:
                thread.join()

    def _draw(self, server: ServerProcess) -> None:
        with server.client() as client, contextlib.suppress(GenerationError):
            while True:
                number = next(self.numbers)
                prompt = f"{THINGS[number % 8]} {number % 5}, {STYLES[number % 2]}"
                answer = draw_small(client, prompt, seed=number, steps=1 + 3 * (number % 3 == 0))
                if answer.entry_id:
                    self.answers[answer.entry_id] = (prompt, answer)
                self.received += 1


@dataclass(frozen=True)
class Left:
    """What a killed server left in its folder."""

    states: dict[str, str]  # checksum by state id, of the ledger
    files: dict[str, Path]  # by state id, of those whose name is one
    leftovers: int  # all other files

    @classmethod
    def of(cls, data_dir: Path, scratch: Path) -> Left:
        states = dict(read_ledger(data_dir, scratch, "SELECT id, checksum FROM states"))
        paths = [path for path in (data_dir / "states").rglob("*") if path.is_file()]
        files = {path.stem: path for path in paths if path.suffix == ".safetensors"}
        return cls(states, files, len(paths) - len(files))

    @property
    def missing(self) -> int:
        return len(set(self.states) - set(self.files))

    @property
    def swept(self) -> int:
        return len(set(self.files) - set(self.states)) + self.leftovers


def check_start(server: ServerProcess, before: Left) -> None:
    """It said what it found, and dropped what was not whole."""
    (ready,) = server.events("ready")
    assert (ready["states_missing"], ready["files_swept"]) == (before.missing, before.swept)
    assert server.metric("diffcache_states_dropped_total", reason="missing") == before.missing
    assert ready["entries"] == len(server.entries())


def check_folder(server: ServerProcess, scratch: Path) -> None:
    """Every state of the ledger has its bytes, no byte is without a state, and the budget is kept."""
    shown = {state.id for entry in server.entries().values() for state in entry.states}
    left = Left.of(server.config.data_dir, scratch)
    assert set(left.states) == set(left.files) == shown
    assert left.leftovers == 0
    for state_id, path in left.files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == left.states[state_id]
    (allocated,) = read_ledger(server.config.data_dir, scratch, "SELECT coalesce(sum(bytes), 0) FROM states")
    assert allocated[0] == 4096 * len(left.files)
    assert allocated[0] <= CAPACITY
    assert server.metric("diffcache_cache_bytes") == allocated[0]


def look_ups_given_up(server: ServerProcess) -> float:
    """On a busy machine some take longer than a request waits for them."""
    return server.metric("diffcache_index_errors_total", op="look_up")


def check_pictures(server: ServerProcess, writers: Writers) -> int:
    """What was answered before is answered again, to the byte. Returns how many entries that were."""
    listed = [(i, *writers.answers[i]) for i in server.entries() if i in writers.answers]
    with server.client() as client:
        for entry_id, prompt, first in listed:
            given_up = look_ups_given_up(server)
            again = draw_small(client, prompt, seed=first.seed, steps=first.steps)
            assert again.data == first.data
            if look_ups_given_up(server) == given_up:
                assert (again.result, again.parent_entry_id) == (Result.EXACT, entry_id)
        for entry_id, prompt, first in listed[:1]:
            given_up = look_ups_given_up(server)
            near = draw_small(client, prompt, seed=first.seed + 10**6, steps=8)
            assert near.result is Result.APPROXIMATE or look_ups_given_up(server) > given_up, entry_id
        assert draw_small(client, "a lighthouse", seed=None, steps=1).result is Result.MISS  # one step skips none
    assert server.metric("diffcache_requests_total", result="error") == 0
    assert server.metric("diffcache_states_dropped_total", reason="damaged") == 0
    return len(listed)


def kill_at_a_moment(server: ServerProcess, writers: Writers, chance: random.Random) -> None:
    """After some answers, at any moment, or at one close to a write of the ledger: the narrow ones."""
    enough = chance.randrange(1, 30)
    wait_for(f"{enough} answers", lambda: writers.received >= enough)
    if chance.random() < 0.3:
        threading.Event().wait(chance.random() * 0.1)  # one request takes about so long
        os.kill(server.process.pid, signal.SIGKILL)
        return
    log = server.config.data_dir / "ledger.db-wal"
    last, deadline = log.stat().st_mtime_ns, time.monotonic() + PATIENCE_SECONDS
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # else the writers' threads make this one late by 5 ms, and the moment has passed
    try:
        while log.stat().st_mtime_ns == last:
            assert time.monotonic() < deadline, "the ledger is not written"
        moment = time.perf_counter() + chance.random() * 0.003  # from making room in the ledger to the new entry in it
        while time.perf_counter() < moment:
            pass
        os.kill(server.process.pid, signal.SIGKILL)
    finally:
        sys.setswitchinterval(switch_seconds)


def kill_again_and_again(zygote: Zygote, folder: Path, index_of: list[str], seed: int) -> int:
    """One life for each index, killed; returns how many left something to repair."""
    chance, writers = random.Random(seed), Writers()
    config = serving_config(folder / "data", capacity_bytes=CAPACITY)
    checked = killed_with_work = 0
    before = Left({}, {}, 0)
    for index in [*index_of, "Memory"]:
        life: dict[str, Any] = {"listen": free_listen(), "index": config.index.model_copy(update={"type": index})}
        with ServerProcess.forked(zygote, config.model_copy(update=life), folder) as server:
            server.wait_ready()
            check_start(server, before)
            check_folder(server, folder / "copy")
            checked += check_pictures(server, writers)
            child = server.milvus_child()
            assert (child is not None) == (index == "Lite")
            with writers.drawing(server):
                kill_at_a_moment(server, writers, chance)
            assert "Traceback" not in server.stderr()
            if child is not None:
                wait_for("the Milvus Lite child to end after its parent", functools.partial(is_gone, child))
        before = Left.of(config.data_dir, folder / "copy")
        killed_with_work += bool(before.missing or before.swept)
    print(f"{len(index_of)} kills: {killed_with_work} left something to repair, {checked} pictures compared")
    assert checked > 0
    return killed_with_work


def test_two_kills(zygote: Zygote, tmp_path: Path) -> None:
    kill_again_and_again(zygote, tmp_path, ["Memory", "Lite"], seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills(zygote: Zygote, tmp_path: Path) -> None:
    indexes = ["Lite" if number % 10 == 9 else "Memory" for number in range(50)]
    assert kill_again_and_again(zygote, tmp_path, indexes, seed=20261124) > 0, "none of them hit a write: aim better"
