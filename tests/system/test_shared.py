"""Serving processes that share a cache: a real Redis, a real S3 server, one Milvus; any of them may be killed."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from diffcache import CacheMode, Generation, GenerationError, Result
from diffcache_core.serving_config import IndexConfig, LedgerConfig, ServingConfig, StoreConfig
from diffcache_serving.cache.milvus_lite import MilvusLite
from tests.serving.cache.redis_server import RedisServer
from tests.serving.cache.s3_server import S3Server
from tests.system.serverprocess import (
    ENVIRONMENT,
    ServerProcess,
    Zygote,
    draw_small,
    free_listen,
    serving_config,
    wait_for,
)

pytestmark = pytest.mark.shared

PREFIX = "default/test"
BASE = f"{{diffcache:{PREFIX}}}"
CAPACITY = 16 * 4096  # 16 entries of one block each, so nearly every write also evicts
THINGS = ("red apple", "grinning cat", "pizza", "orange heart", "dog face", "doughnut", "tiger face", "rocket")
PROMPT, NEAR = "red apple, noto style", "a red apple, noto style"


@pytest.fixture(scope="module")
def zygote_with_keys() -> Iterator[Zygote]:
    """Its children have the bucket's credentials in the environment, as a pod has."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3Server.environment.items():
            patch.setitem(ENVIRONMENT, name, value)
        with Zygote() as zygote:
            yield zygote


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    child = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    yield child
    child.stop()


@dataclass
class Shared:
    """What the pods share, and how one is started."""

    zygote: Zygote
    redis: RedisServer
    s3: S3Server
    bucket: StoreConfig
    uri: str
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def pod(self, **changes: Any) -> ServerProcess:
        base = serving_config(self.folder / f"pod{next(self.numbers)}", **changes)
        cache = base.cache.model_copy(
            update={"store": self.bucket, "ledger": LedgerConfig(address=self.redis.address, prefix=PREFIX)}
        )
        index = IndexConfig(type="External", uri=self.uri)
        config: ServingConfig = base.model_copy(update={"cache": cache, "index": index, "listen": free_listen()})
        return ServerProcess.forked(self.zygote, config, self.folder)

    def total_bytes(self) -> int:
        with self.redis.client() as client:
            return int(client.hget(f"{BASE}:meta", "bytes") or 0)

    @contextmanager
    def watched_budget(self) -> Iterator[list[int]]:
        """The largest total of bytes seen, asked without a pause."""
        largest, done = [0], threading.Event()

        def watch() -> None:
            with self.redis.client() as client:
                while not done.is_set():
                    largest[0] = max(largest[0], int(client.hget(f"{BASE}:meta", "bytes") or 0))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield largest
        finally:
            done.set()
            thread.join()


@pytest.fixture
def shared(zygote_with_keys: Zygote, lite: MilvusLite, tmp_path: Path) -> Iterator[Shared]:
    with RedisServer(tmp_path / "redis") as redis, S3Server(tmp_path / "s3") as s3:
        redis.start()
        yield Shared(zygote_with_keys, redis, s3, s3.start().make_bucket(), lite.uri(), tmp_path)


def draw(server: ServerProcess, prompt: str = PROMPT, seed: int = 1, **options: Any) -> Generation:
    with server.client() as client:
        return draw_small(client, prompt, seed, **options)


def test_what_one_pod_drew_another_resumes(shared: Shared) -> None:
    with shared.pod() as one, shared.pod() as two:
        one.wait_ready()
        two.wait_ready()
        first = draw(one)
        assert set(one.entries()) == {first.entry_id}  # so the keeper has written it
        again = draw(two)
        assert (again.result, again.parent_entry_id, again.data) == (Result.EXACT, first.entry_id, first.data)

        def near() -> Generation:
            return draw(two, NEAR, seed=2, mode=CacheMode.READ_ONLY)

        wait_for("a resume from the other's state", lambda: near().result is Result.APPROXIMATE)
        found = near()
        assert found.parent_entry_id == first.entry_id
        assert found.data == draw(one, NEAR, seed=2, mode=CacheMode.READ_ONLY).data
        assert set(one.entries()) == set(two.entries()) == {first.entry_id}
        for pod in (one, two):
            wait_for("both to count all", lambda pod=pod: pod.metric("diffcache_entries") == 1)  # type: ignore[misc]
            assert pod.metric("diffcache_ledger_up") == 1


def test_redis_killed_is_a_miss_and_it_comes_back(shared: Shared) -> None:
    with shared.pod() as one:
        one.wait_ready()
        first = draw(one)
        assert set(one.entries()) == {first.entry_id}
        shared.redis.kill()
        during = draw(one)
        assert (during.result, during.data) == (Result.MISS, first.data)
        assert one.metric("diffcache_ledger_up") == 0
        with shared.pod() as late:  # one that starts while there is none
            late.wait_ready()
            assert draw(late).data == first.data
            assert "requests miss" in late.stderr()
            shared.redis.start()
            for pod in (one, late):
                wait_for("hits again", lambda pod=pod: draw(pod).result is Result.EXACT)  # type: ignore[misc]
                assert pod.metric("diffcache_requests_total", result="error") == 0
                assert pod.metric("diffcache_ledger_up") == 1
                assert "Traceback" not in pod.stderr()


def test_a_bucket_out_of_reach_is_a_miss_and_is_told_while_nobody_asks(shared: Shared) -> None:
    with shared.pod() as one:
        one.wait_ready()
        first = draw(one)
        assert set(one.entries()) == {first.entry_id}
        shared.s3.kill()
        wait_for("the pod to say so", lambda: one.metric("diffcache_store_up") == 0)
        during = draw(one)
        assert (during.result, during.data) == (Result.MISS, first.data)
        shared.s3.start()
        wait_for("the pod to take it back", lambda: one.metric("diffcache_store_up") == 1)
        wait_for("hits again", lambda: draw(one).result is Result.EXACT)
        assert one.metric("diffcache_requests_total", result="error") == 0
        assert "Traceback" not in one.stderr()


@dataclass
class Writers:
    """Clients that draw on a pod until it is gone, and every answer that they got."""

    numbers: Iterator[int] = field(default_factory=itertools.count)
    answers: dict[str, tuple[str, Generation]] = field(default_factory=dict)  # by entry id: prompt and answer
    received: int = 0

    @contextmanager
    def drawing(self, server: ServerProcess, is_over: Callable[[], bool]) -> Iterator[None]:
        threads = [threading.Thread(target=self._draw, args=(server, is_over)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()

    def _draw(self, server: ServerProcess, is_over: Callable[[], bool]) -> None:
        with server.client() as client, suppress(GenerationError):
            while not is_over():
                number = next(self.numbers)
                prompt = f"{THINGS[number % 8]} {number % 5}, {('noto', 'flat')[number % 2]} style"
                answer = draw_small(client, prompt, seed=number, steps=1 + 3 * (number % 3 == 0))
                if answer.entry_id:
                    self.answers[answer.entry_id] = (prompt, answer)
                self.received += 1


def given_up(pod: ServerProcess) -> float:
    """Look-ups that ran past their deadline, or were not made because others had."""
    failed = pod.metric("diffcache_index_errors_total", op="look_up")
    return failed + pod.metric("diffcache_look_ups_skipped_total")


def draw_in_time(pod: ServerProcess, prompt: str, first: Generation) -> Generation:
    """The same again, by a look-up that was not given up: on a busy machine 200 ms are soon gone."""
    while True:
        before = given_up(pod)
        again = draw(pod, prompt, seed=first.seed, steps=first.steps, mode=CacheMode.READ_ONLY)
        if given_up(pod) == before:
            return again


def check_whole(shared: Shared, pod: ServerProcess, writers: Writers) -> int:
    """Every state of the ledger has its very bytes, the totals are those of the rows, and answers come again to the
    byte. Returns how many pictures were compared."""
    states = [state for entry in pod.entries().values() for state in entry.states]
    files = {file.stem: file for file in shared.s3.files(shared.bucket)}
    with shared.redis.client() as client:
        for state in states:
            checksum = client.hget(f"{BASE}:state:{state.id}", "checksum")
            assert checksum.decode() == hashlib.sha256(files[state.id].read_bytes()).hexdigest()
    assert shared.total_bytes() == 4096 * len(states) <= CAPACITY
    compared = 0
    for entry_id in set(pod.entries()) & set(writers.answers):
        prompt, first = writers.answers[entry_id]
        again = draw_in_time(pod, prompt, first)
        assert (again.result, again.parent_entry_id, again.data) == (Result.EXACT, entry_id, first.data)
        compared += 1
    assert pod.metric("diffcache_states_dropped_total", reason="damaged") == 0
    assert pod.metric("diffcache_requests_total", result="error") == 0
    return compared


def kill_one_after_another(shared: Shared, kills: int, seed: int) -> None:
    chance, writers, compared = random.Random(seed), Writers(), 0
    with ExitStack() as lives, shared.watched_budget() as largest:
        survivor = lives.enter_context(shared.pod(capacity_bytes=CAPACITY)).wait_ready()
        for _ in range(kills):
            victim = lives.enter_context(shared.pod(capacity_bytes=CAPACITY)).wait_ready()
            over = threading.Event()
            enough = writers.received + chance.randrange(10, 40)
            with writers.drawing(survivor, over.is_set), writers.drawing(victim, over.is_set):
                wait_for("enough answers", lambda enough=enough: writers.received >= enough)  # type: ignore[misc]
                threading.Event().wait(chance.random() * 0.1)  # one request takes about so long
                victim.kill()
                after = writers.received + 5
                wait_for("the other to serve on", lambda after=after: writers.received >= after)  # type: ignore[misc]
                over.set()
            compared += check_whole(shared, survivor, writers)
            assert "Traceback" not in victim.stderr()
            survivor, victim = (survivor, victim) if chance.random() < 0.5 else (victim, survivor)
            if survivor.process.poll() is not None:  # the next one to be killed is the one that was left
                survivor = lives.enter_context(shared.pod(capacity_bytes=CAPACITY)).wait_ready()
        assert survivor.stop() == 0
    assert 0 < largest[0] <= CAPACITY
    assert compared > 0


def test_a_pod_killed_at_any_moment_leaves_nothing_torn(shared: Shared) -> None:
    kill_one_after_another(shared, kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills(shared: Shared) -> None:
    kill_one_after_another(shared, kills=20, seed=20261124)
