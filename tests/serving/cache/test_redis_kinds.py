"""Redis as others set it up: a Cluster, which is refused by name, and a user with no more rights than documented."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_serving.cache.ledger import Target
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.redis_client import RedisAccess, connect
from diffcache_serving.simulated_caches.redis_stream import RedisStream
from diffcache_serving.values.errors import LedgerError
from tests.serving.cache.entries import KEY, entry, trajectory
from tests.serving.cache.redis_server import RedisServer

pytestmark = pytest.mark.shared

DOCUMENTED = Path("docs/cluster.md")
NODE = "redis://me:secret@127.0.0.1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as redis:
        yield redis


@pytest.mark.parametrize(
    ("slots", "may_ask"), [("none", True), ("none", False), ("half", True), ("half", False), ("all", True)]
)
async def test_a_cluster_is_refused_by_name(
    slots: str, may_ask: bool, server: RedisServer, free_ports: Callable[[int], list[int]]
) -> None:
    server.start("--cluster-enabled", "yes", "--cluster-port", str(free_ports(1)[0]))
    with server.client() as node:
        if slots != "none":
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8000 if slots == "half" else 16383)
        node.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "no")
        rights = ["+@all"] if may_ask else ["+@all", "-info"]
        node.execute_command("ACL", "SETUSER", "me", "on", ">secret", "~*", *rights)
    access = RedisAccess(f"{NODE}:{server.port}/0")
    with pytest.raises(LedgerError, match="is a Redis Cluster") as raised:
        await RedisLedger.open(access, "name-in-the-other-half-0")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("more", [["+info"], []])
async def test_the_documented_rights_are_enough(more: list[str], server: RedisServer, tmp_path: Path) -> None:
    found = re.search(r"`~\{diffcache:NAMESPACE/NAME\}\* ([^`]*)`", DOCUMENTED.read_text())
    assert found is not None
    rights = found[1].split()
    server.start()
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "me", "on", ">secret", "~{diffcache:demo/emoji}*", *rights, *more)
    (tmp_path / "password").write_text("secret\n")
    access = RedisAccess(f"redis://me@127.0.0.1:{server.port}/0", tmp_path / "password")
    ledger = await RedisLedger.open(access, "demo/emoji")
    await ledger.adopt("family", "emoji@f00d", 1.0)
    for name in ("a", "b", "c"):
        await ledger.insert(trajectory(name, (2, 4)), KEY, Budget(2**20, 2))
    await ledger.insert(entry("d"), KEY, Budget(2**20, 2))
    assert await ledger.find_exact("exact-d") is not None
    await ledger.record_hit("d-0", 4, 4.0)
    await ledger.reserve(0, 1, Budget(2**20, 2))
    assert (await ledger.list_entries(Target(), 10))[1] == 1
    assert len((await ledger.list_entries(Target(tenant="default"), 10))[0]) == 1
    assert await ledger.state_ids()
    assert await ledger.models() == {"emoji@f00d"}
    assert await ledger.lease("sweep", 10.0)
    await ledger.policy_record()
    await ledger.adopt("other", "emoji@f00d", 1.0)
    await ledger.drop_retired(2.0, 10)
    await ledger.drop_entries(Target())
    assert (await ledger.totals()).entries == 0
    stream = RedisStream(connect(access), "diffcache:demo/emoji")
    assert (await stream.read(0.01)).is_first
    await stream.read(0.01)
    await stream.close()
    assert ledger.outages == 0
    await ledger.close()
