"""The ledger of several processes: many writers at once, and a Redis that is down, slow, empty, full or a replica."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import trustme

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.states import StateKind
from diffcache_serving.cache.ledger import LedgerUnavailable, Target, Totals
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.pieces import PIECE
from diffcache_serving.cache.redis_client import RedisAccess
from diffcache_serving.values.errors import LedgerError
from tests.serving.cache.entries import KEY, entry, trajectory
from tests.serving.cache.redis_server import RedisServer

pytestmark = pytest.mark.shared
ROOT = Path(__file__).parents[3]


@pytest.fixture
async def ledgers(redis_server: RedisServer) -> AsyncIterator[Callable[[], RedisLedger]]:
    """Ledgers of processes that share one."""
    made: list[RedisLedger] = []
    prefix = uuid.uuid4().hex

    def make() -> RedisLedger:
        made.append(RedisLedger(RedisAccess(redis_server.address), prefix))
        return made[-1]

    yield make
    for ledger in made:
        await ledger.close()


# ---- several writers -------------------------------------------------------------------------------------------------


def test_many_writers_keep_the_budget_evict_nothing_twice_and_lose_nothing(redis_server: RedisServer) -> None:
    prefix, budget = uuid.uuid4().hex, Budget(40 * 4096, 15)
    numbers = [("400", str(budget.bytes), str(budget.entries)) for _ in range(4)]
    command = [sys.executable, "-m", "tests.serving.cache.ledger_writer", redis_server.address, prefix]
    writers = [
        subprocess.Popen([*command, str(seed), *rest], stdout=subprocess.PIPE, cwd=ROOT)
        for seed, rest in enumerate(numbers)
    ]
    told = [json.loads(writer.communicate()[0]) for writer in writers]
    assert not any(each["exceeded"] for each in told)
    gone = [state for each in told for state in each["gone"]]
    assert len(gone) == len(set(gone)), "nobody is handed what another was handed"
    inserted = {state for each in told for state in each["inserted"]}

    async def check() -> None:
        ledger = await RedisLedger.open(RedisAccess(redis_server.address), prefix)
        left = await ledger.state_ids()
        assert left | set(gone) == inserted, "what is not there was handed to somebody"
        assert not left & set(gone), "what went never comes back"
        listed = (await ledger.list_entries(Target(), 10**6))[0]
        states = [state for each in listed for state in each.states]
        assert {s.id for s in states} == left
        assert await ledger.totals() == Totals(len(listed), len(states), sum(s.bytes for s in states))
        await ledger.drop_entries(Target())
        assert await ledger.totals() == Totals()
        await ledger.close()

    asyncio.run(check())
    with redis_server.client() as client:
        keys = {key.decode().rpartition("}")[2] for key in client.keys(f"*{prefix}*")}
    assert keys == {":meta", ":grants", ":gone", ":purged", ":purges"}, "an empty ledger keeps its statistics only"


async def test_a_killed_writers_reservation_is_nobodys(ledgers: Callable[[], RedisLedger]) -> None:
    killed, other, budget = ledgers(), ledgers(), Budget(4 * 4096, 100)
    for name in "abcd":
        await other.insert(entry(name), KEY, budget)
    assert len((await killed.reserve(2 * 4096, 1, budget)).states) == 2  # and it never inserts
    for name in "ef":
        assert (await other.insert(entry(name), KEY, budget)).evicted.states == ()
    assert (await other.totals()).bytes == budget.bytes


async def test_what_was_evicted_stays_so_however_late_a_hit_or_an_insertion_comes(
    ledgers: Callable[[], RedisLedger],
) -> None:
    one, two = ledgers(), ledgers()
    late = entry("a")
    await one.insert(late, KEY)
    await two.reserve(0, 0, Budget(0, 0))
    await one.record_hit("a-0", 4, 4.0)
    assert (await one.insert(late, KEY)).was_purged
    assert await one.totals() == Totals()
    assert await one.entries(["a"]) == {}


async def test_a_purge_takes_what_runs_elsewhere_draw_from_it_and_what_waits_there(
    ledgers: Callable[[], RedisLedger],
) -> None:
    one, two = ledgers(), ledgers()
    await one.insert(entry("a"), KEY)
    waiting, later = entry("b", created=time.time()), entry("d", created=time.time() + 3600)
    assert (await one.drop_entries(Target(prompt_contains="prompt"))).entries == ("a",)
    assert (await two.insert(waiting, KEY)).was_purged
    assert (await two.insert(entry("c", parent="a", prompt="another", created=time.time()), KEY)).was_purged
    assert not (await two.insert(later, KEY)).was_purged
    assert (await one.list_entries(Target(), 9))[1] == 1


async def test_two_families_live_side_by_side_while_pods_are_replaced(ledgers: Callable[[], RedisLedger]) -> None:
    old, new, roomy = ledgers(), ledgers(), Budget(3 * 4096, 100)
    await old.adopt("old", "emoji@f00d", now=0.0)
    await old.insert(entry("a"), KEY, roomy)
    await new.adopt("new", "emoji@f00d", now=100.0)
    await old.insert(entry("b"), KEY, roomy)  # it serves on, and keeps
    await new.insert(entry("c"), KEY, roomy)
    for _ in range(9):
        await old.record_hit("a-0", 4, 4.0)
    ids = await old.indexed_ids(StateKind.CLEAN)
    assert (ids.mine, ids.others) == ({"a", "b"}, {"c"})
    ids = await new.indexed_ids(StateKind.CLEAN)
    assert (ids.mine, ids.others) == ({"c"}, {"a", "b"})
    assert (await new.insert(entry("d"), KEY, roomy)).evicted.entries == ("b",), "the retired first, the lowest of them"
    assert (await new.drop_retired(before=99.0, limit=9)).entries == ()
    assert (await new.drop_retired(before=100.0, limit=9)).entries == ("a",)


async def test_an_old_pod_that_keeps_on_after_its_family_was_emptied_is_purged_too(
    ledgers: Callable[[], RedisLedger],
) -> None:
    old, new = ledgers(), ledgers()
    await old.adopt("old", "emoji@f00d", now=0.0)
    await new.adopt("new", "emoji@f00d", now=1.0)
    await old.insert(entry("a"), KEY)
    assert (await new.drop_retired(before=time.time() + 60, limit=9)).entries == ("a",)


async def test_a_large_eviction_is_done_in_pieces(ledgers: Callable[[], RedisLedger]) -> None:
    ledger = ledgers()
    for number in range(2 * PIECE + 7):
        await ledger.insert(entry(f"e{number}"), KEY)
    assert len((await ledger.reserve(0, 0, Budget(4096, 10))).entries) == 2 * PIECE + 6


async def test_a_lease_is_one_process_and_runs_out(ledgers: Callable[[], RedisLedger]) -> None:
    one, two = ledgers(), ledgers()
    assert await one.lease("sweep", 60.0)
    assert not await two.lease("sweep", 60.0)
    assert await one.lease("short", 0.001)
    while not await two.lease("short", 60.0):
        await asyncio.sleep(0)


async def test_caches_on_one_redis_do_not_meet(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    access = RedisAccess(redis_server.address)
    one, two = RedisLedger(access, f"{prefix}/emoji"), RedisLedger(access, f"{prefix}/emoji2")
    await one.insert(entry("a"), KEY)
    await two.insert(entry("a"), KEY)
    await two.drop_entries(Target())
    assert (await one.totals()).entries == 1
    assert one.id != two.id
    await one.close()
    await two.close()


async def test_more_than_a_page_is_scanned_listed_and_read(ledgers: Callable[[], RedisLedger]) -> None:
    ledger = ledgers()
    for number in range(450):
        await ledger.insert(entry(f"e{number}", created=float(number), prompt=f"p {number % 2}"), KEY)
    assert len(await ledger.state_ids()) == 450
    assert len(await ledger.keys((await ledger.indexed_ids(StateKind.CLEAN)).mine)) == 450
    listed, total = await ledger.list_entries(Target(prompt="p 1"), 210)
    assert ([e.id for e in listed], total) == ([f"e{n}" for n in range(449, 29, -2)], 225)
    listed, total = await ledger.list_entries(Target(), 300)
    assert (len(listed), total, listed[0].id) == (300, 450, "e449")


# ---- a Redis that is not what it should be ---------------------------------------------------------------------------


@pytest.fixture
async def outcomes() -> list[bool]:
    return []


@pytest.fixture
async def opened(tmp_path: Path, outcomes: list[bool]) -> AsyncIterator[tuple[RedisServer, RedisLedger]]:
    with RedisServer(tmp_path / "redis") as server:
        ledger = await RedisLedger.open(RedisAccess(server.start().address), "a/b", outcomes.append)
        yield server, ledger
        await ledger.close()


async def test_a_redis_that_comes_after_the_start_is_adopted_then(tmp_path: Path, outcomes: list[bool]) -> None:
    with RedisServer(tmp_path / "redis") as server:
        ledger = await RedisLedger.open(RedisAccess(server.address), "a/b", outcomes.append)
        with pytest.raises(LedgerUnavailable):
            await ledger.adopt("mine", "emoji@f00d", now=0.0)
        assert (ledger.id, outcomes) == ("", [False, False])
        server.start()
        await ledger.insert(entry("a"), KEY)
        assert (await ledger.indexed_ids(StateKind.CLEAN)).mine == {"a"}
        assert outcomes[-1]
        with server.client() as client:
            assert client.hget("{diffcache:a/b}:meta", "family") == b"mine"
        await ledger.close()


async def test_a_redis_that_was_restarted_empty_is_begun_anew_under_the_same_id(
    opened: tuple[RedisServer, RedisLedger], outcomes: list[bool]
) -> None:
    server, ledger = opened
    await ledger.adopt("mine", "emoji@f00d", now=0.0)
    await ledger.insert(entry("a"), KEY)
    name, outages = ledger.id, ledger.outages
    server.kill()
    with pytest.raises(LedgerUnavailable):
        await ledger.entries(["a"])
    assert not outcomes[-1]
    server.start()
    with pytest.raises(LedgerUnavailable, match="other contents"):
        await ledger.entries(["a"])
    assert await ledger.entries(["a"]) == {}
    assert (ledger.id, outcomes[-1]) == (name, True)
    assert ledger.outages > outages
    await ledger.insert(entry("b"), KEY)
    assert await ledger.totals() == Totals(1, 1, 4096)


async def test_after_a_flush_no_write_lands_in_a_ledger_that_was_not_begun(
    opened: tuple[RedisServer, RedisLedger],
) -> None:
    server, ledger = opened
    await ledger.insert(entry("a"), KEY)
    with server.client() as client:
        client.flushall()
    with pytest.raises(LedgerUnavailable):
        await ledger.insert(entry("b"), KEY)
    await ledger.insert(entry("c"), KEY)
    assert await ledger.totals() == Totals(1, 1, 4096)


async def test_a_redis_that_hangs_is_given_up_and_no_answer_is_taken_for_anothers(
    opened: tuple[RedisServer, RedisLedger], outcomes: list[bool]
) -> None:
    server, ledger = opened
    for name in "ab":
        await ledger.insert(entry(name), KEY)
    server.pause()
    for name in "ab":  # as a look-up does, whose deadline is shorter than the connection's
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ledger.entries([name])
    with pytest.raises(LedgerUnavailable):
        await ledger.check()
    assert not outcomes[-1]
    server.go_on()
    for name in "ba":
        assert set(await ledger.entries([name])) == {name}


async def test_full_redis_refuses_and_tears_nothing(opened: tuple[RedisServer, RedisLedger]) -> None:
    server, ledger = opened
    await ledger.insert(trajectory("a", (2, 4)), KEY)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(LedgerUnavailable, match="maxmemory"):
            await ledger.insert(entry("b"), np.zeros(1000, np.float32))
        assert set(await ledger.entries(["a"])) == {"a"}, "reading goes on"
        client.config_set("maxmemory", 0)
    assert await ledger.totals() == Totals(1, 3, 3 * 4096)
    await ledger.insert(entry("b"), KEY)
    assert await ledger.totals() == Totals(2, 4, 4 * 4096)


async def test_a_replica_refuses_and_is_left_when_it_is_the_master_again(
    opened: tuple[RedisServer, RedisLedger],
) -> None:
    server, ledger = opened
    await ledger.insert(entry("a"), KEY)
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")  # nobody is there
        with pytest.raises(LedgerUnavailable):
            await ledger.insert(entry("b"), KEY)
        client.replicaof("NO", "ONE")
    await ledger.insert(entry("c"), KEY)
    assert (await ledger.totals()).entries == 2


async def test_a_password_is_read_anew_for_each_connection(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    with RedisServer(tmp_path / "redis") as server:
        access = RedisAccess(server.start(password="first").address, password_file=secret)
        ledger = await RedisLedger.open(access, "a/b")
        await ledger.insert(entry("a"), KEY)
        server.kill()
        server.start(password="second")
        with pytest.raises(LedgerUnavailable):
            await ledger.check()
        with pytest.raises(LedgerUnavailable):
            await ledger.check()
        secret.unlink()
        with pytest.raises(LedgerUnavailable):
            await ledger.check()
        secret.write_text("second")
        with pytest.raises(LedgerUnavailable, match="other contents"):
            await ledger.check()
        await ledger.insert(entry("a"), KEY)
        await ledger.close()


async def test_tls_is_checked_against_the_ca_of_the_file_read_anew(tmp_path: Path) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    certificate = right.issue_cert("127.0.0.1")
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    wrong.cert_pem.write_to_path(ca)
    options = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with RedisServer(tmp_path / "redis") as server:
        server.start(*options, tls=True)
        ledger = RedisLedger(RedisAccess(f"rediss://127.0.0.1:{server.port}/0", ca_file=ca), "a/b")
        with pytest.raises(LedgerUnavailable, match="CERTIFICATE"):
            await ledger.check()
        right.cert_pem.write_to_path(ca)
        await ledger.insert(entry("a"), KEY)
        await ledger.close()


async def test_a_ledger_of_another_format_is_left_alone(opened: tuple[RedisServer, RedisLedger]) -> None:
    server, _ = opened
    with server.client() as client:
        client.hset("{diffcache:a/newer}:meta", mapping={"format": 99, "id": "x", "contents": "y"})
    with pytest.raises(LedgerError, match="format 99"):
        await RedisLedger.open(RedisAccess(server.address), "a/newer")


async def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(LedgerError, match="http://redis is not the address of a Redis"):
        await RedisLedger.open(RedisAccess("http://redis"), "a/b")
