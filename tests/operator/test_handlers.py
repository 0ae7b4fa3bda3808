"""What kopf calls, called by kopf itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import kopf
import pytest

from diffcache_operator.handlers import registry_for, settings
from diffcache_operator.queue import Key, Queue
from tests.operator.small_cluster import SmallCluster, cache, cache_path, running

MANY = 2500


async def test_thousands_of_resources_and_their_changes_reach_the_queue_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kopf calls what is no coroutine in a thread of its own: there the queue changed while the loop went over it."""
    cluster, names = SmallCluster(), [f"cache-{i}" for i in range(MANY)]
    for name in names:
        cluster.put(cache_path(name), cache(name), told=False)
    reconciled: set[Key] = set()
    twice: set[Key] = set()
    all_twice = asyncio.Event()
    threads: set[int] = set()

    async def reconcile(key: Key) -> object:
        if key not in reconciled:
            reconciled.add(key)
            cluster.put(cache_path(key.name), cache(key.name))  # an event for each, while the others still arrive
        else:
            twice.add(key)
            if len(twice) == MANY:
                all_twice.set()
        return 600.0

    class Told(Queue):
        def add(self, namespace: str, name: str) -> None:
            threads.add(threading.get_ident())
            super().add(namespace, name)

    def never(key: Key, error: Exception, wait: float) -> None:
        raise AssertionError(error)

    queue = Told(reconcile, never)
    async with running(cluster, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        run = asyncio.create_task(queue.run())
        watch = asyncio.create_task(
            kopf.operator(registry=registry_for(queue), settings=settings(), standalone=True, clusterwide=True)
        )
        done = asyncio.create_task(all_twice.wait())
        await asyncio.wait({run, watch, done}, return_when=asyncio.FIRST_COMPLETED, timeout=120)
        finished = done.done() and not run.done() and not watch.done()
        for task in (watch, run, done):
            task.cancel()
        outcomes = await asyncio.gather(run, watch, return_exceptions=True)
    assert finished, outcomes
    assert threads == {threading.get_ident()}
