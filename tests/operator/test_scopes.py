"""Who may write where: operators on one API server, each with a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from kubernetes.aio import client
from kubernetes.aio.dynamic import DynamicClient

from diffcache_operator.clients.api import Api
from diffcache_operator.scopes import ALL, LEASE, LEASE_SECONDS, RENEW_SECONDS, Scope, Scopes
from tests.operator.http_server import serving
from tests.operator.small_cluster import SmallCluster


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def api_of(cluster: SmallCluster) -> AsyncIterator[Api]:
    async with serving(cluster.answer) as url, client.ApiClient(client.Configuration(host=url)) as api_client:
        yield Api(DynamicClient(api_client))


def lease(cluster: SmallCluster, scope: Scope) -> str:
    found = cluster.found.get(f"/apis/coordination.k8s.io/v1/namespaces/{scope.namespace}/leases/{scope.lease}")
    return "" if found is None else str(found["spec"]["holderIdentity"])


async def look(scopes: Scopes) -> bool:
    """Whether the first look of `wait` was enough."""
    looked = asyncio.Event()
    waiting = asyncio.create_task(scopes.wait(looked.set))
    await looked.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return done


@pytest.mark.parametrize("namespaces", [(), ("team",)], ids=["all namespaces", "one namespace"])
async def test_the_second_one_waits_says_for_whom_and_takes_over(namespaces: tuple[str, ...]) -> None:
    cluster, scope = SmallCluster(), Scope("team", LEASE) if namespaces else ALL
    async with api_of(cluster) as api:
        first, second = Scopes(api, "a/first", namespaces), Scopes(api, "b/second", namespaces)
        assert await look(first)
        assert first.waits_for == ""
        assert not await look(second)
        assert lease(cluster, scope) == "a/first"
        for words in ("a/first", scope.lease, "all namespaces" if not namespaces else "namespace team"):
            assert words in second.waits_for
        assert not await second.may_write("team")
        await first.release()
        assert lease(cluster, scope) == ""  # nothing is left of it after an uninstall
        assert await look(second)
        assert (second.waits_for, lease(cluster, scope)) == ("", "b/second")
        assert await second.may_write("team")
        assert not await first.may_write("team")


async def test_one_that_was_killed_is_waited_for_until_its_lease_ends_and_no_clock_is_believed() -> None:
    cluster, clock = SmallCluster(), Clock()
    async with api_of(cluster) as api:
        assert await look(Scopes(api, "a/killed", (), lambda: 77.0))
        second = Scopes(api, "b/second", (), clock)
        assert not await look(second)
        clock.now += LEASE_SECONDS - 1
        assert not await look(second)
        clock.now += 2
        assert await look(second)


async def test_one_of_all_namespaces_that_was_killed_is_not_waited_for_again_in_each_namespace() -> None:
    cluster, clock, team = SmallCluster(), Clock(), Scope("team", LEASE)
    async with api_of(cluster) as api:
        killed = Scopes(api, "a/killed", (), clock)
        assert await look(killed)
        assert await killed.may_write("team")
        second = Scopes(api, "b/second", (), clock)
        assert not await look(second)
        clock.now += LEASE_SECONDS + 1
        assert await look(second)
        assert lease(cluster, team) == "a/killed"
        assert await second.may_write("team")
        assert lease(cluster, team) == "b/second"
        assert not await killed.may_write("team")


async def test_one_that_comes_back_is_waited_for_as_before() -> None:
    """It was away so long that another one took over, which then was away itself."""
    cluster, clock = SmallCluster(), Clock()
    async with api_of(cluster) as api:
        first, second = Scopes(api, "a/first", (), clock), Scopes(api, "b/second", (), clock)
        assert await look(first)
        assert await first.may_write("team")
        assert not await look(second)
        clock.now += LEASE_SECONDS + 1
        assert await look(second)
        assert not await look(first)
        clock.now += LEASE_SECONDS + 1
        assert await look(first)
        assert not await look(second)
        assert not await second.may_write("team")
        assert await first.may_write("team")


async def test_the_same_pod_does_not_wait_for_itself() -> None:
    """Its container was killed and starts again."""
    async with api_of(SmallCluster()) as api:
        assert await look(Scopes(api, "a/pod", ()))
        assert await look(Scopes(api, "a/pod", ()))


async def test_one_that_renews_is_waited_for() -> None:
    cluster, clock = SmallCluster(), Clock()
    async with api_of(cluster) as api:
        first, second = Scopes(api, "a/first", (), clock), Scopes(api, "b/second", (), clock)
        assert await look(first)
        for _ in range(10):
            assert not await look(second)
            clock.now += RENEW_SECONDS
            assert await look(first)
        assert lease(cluster, ALL) == "a/first"


async def test_what_cannot_be_renewed_is_not_written_to() -> None:
    clock = Clock()
    async with api_of(SmallCluster()) as api:
        scopes = Scopes(api, "a/first", ("team",), clock)
        assert await look(scopes)
        assert scopes.holds("team")
        clock.now += LEASE_SECONDS
        assert not scopes.holds("team")


async def test_an_operator_of_all_namespaces_leaves_one_to_whoever_was_there_first() -> None:
    async with api_of(SmallCluster()) as api:
        narrow, wide = Scopes(api, "a/narrow", ("team",)), Scopes(api, "b/wide", ())
        assert await look(narrow)
        assert await look(wide)
        assert wide.waits_for == ""
        assert not await wide.may_write("team")
        assert await wide.may_write("other")
        assert await narrow.may_write("team")
        assert not await narrow.may_write("other")


async def test_an_operator_of_one_namespace_waits_for_one_of_all_that_has_resources_there() -> None:
    """It may not look beyond its namespace, so what it waits for lies there."""
    async with api_of(SmallCluster()) as api:
        wide, narrow = Scopes(api, "a/wide", ()), Scopes(api, "b/narrow", ("team", "free"))
        assert await look(wide)
        assert await wide.may_write("team")
        assert await look(narrow)  # there is something to do
        assert not await narrow.may_write("team")
        assert await narrow.may_write("free")
        assert "a/wide serves namespace team" in narrow.waits_for
        await wide.release()
        await look(narrow)
        assert narrow.waits_for == ""
        assert await narrow.may_write("team")


async def test_two_that_begin_at_once_are_not_both_first() -> None:
    async with api_of(SmallCluster()) as api:
        scopes = [Scopes(api, f"a/{i}", ()) for i in range(5)]
        assert sorted(await asyncio.gather(*map(look, scopes))) == [False] * 4 + [True]
