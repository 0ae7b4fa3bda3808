"""The operator as a process, against an API server of which things come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.operator.small_cluster import SmallCluster, cache, cache_path, running

Ports = Callable[[int], list[int]]
SECONDS = 100.0  # for what takes a few on a machine with nothing else to do
PROGRAM = """
import sys
from functools import partial
from diffcache_operator import __main__ as program
program.operate = partial(program.operate, ports=(int(sys.argv[1]), int(sys.argv[2])))
program.main()
"""
NAMELESS = """
import os, pwd
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
"""
"""A user that the machine has never heard of, as OpenShift assigns them."""


@dataclass
class Running:
    health: int
    log: Path
    process: asyncio.subprocess.Process

    async def readiness(self) -> tuple[int, str]:
        address = f"http://127.0.0.1:{self.health}/readyz"
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                return answer.status, await answer.text()
        return 0, ""

    async def until(self, status: int, words: str = "") -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                assert self.process.returncode is None, self.log.read_text()
                told, text = await self.readiness()
                if told == status and words in text:
                    return
                await asyncio.sleep(0.05)

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@asynccontextmanager
async def operator(
    kubeconfig: Path, ports: list[int], name: str = "pod", program: str = PROGRAM
) -> AsyncIterator[Running]:
    """Told to end when left."""
    log = kubeconfig.parent / f"{name}.log"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")},
        "KUBECONFIG": str(kubeconfig),
        "DIFFCACHE_POD_NAMESPACE": "system",
        "DIFFCACHE_POD_NAME": name,
    }
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *map(str, ports), env=environment, stderr=file
        )
    try:
        yield Running(ports[0], log, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def written(cluster: SmallCluster, name: str) -> None:
    """Its status tells something."""
    async with asyncio.timeout(SECONDS):
        while not cluster.found[cache_path(name)].get("status", {}).get("conditions"):
            await asyncio.sleep(0.05)


async def test_a_user_without_a_name_runs_it(tmp_path: Path, free_ports: Ports) -> None:
    cluster = SmallCluster()
    cluster.put(cache_path("emoji"), cache("emoji", serving={"replicas": 0}))
    nameless = NAMELESS + PROGRAM
    async with running(cluster, tmp_path) as kubeconfig, operator(kubeconfig, free_ports(2), program=nameless) as one:
        await one.until(200)
        await written(cluster, "emoji")
    assert one.process.returncode == 0


async def test_without_the_crd_it_waits_says_so_and_begins_when_it_comes_and_again(
    tmp_path: Path, free_ports: Ports
) -> None:
    cluster = SmallCluster()
    cluster.serves_caches = False
    async with running(cluster, tmp_path) as kubeconfig, operator(kubeconfig, free_ports(2)) as one:
        await one.until(503, "crds.install=true")
        (waits,) = one.lines()
        assert waits["level"] == "warning"
        assert waits.keys() == {"event", "level", "timestamp"}  # as the serving pods' lines
        cluster.serves_caches = True
        cluster.put(cache_path("emoji"), cache("emoji", serving={"replicas": 0}))
        await one.until(200)
        await written(cluster, "emoji")
        cluster.drop_crd()
        await one.until(503, "crds.install=true")
        cluster.serves_caches = True
        cluster.put(cache_path("again"), cache("again", serving={"replicas": 0}))
        await one.until(200)
        await written(cluster, "again")
    assert one.process.returncode == 0
    text = one.log.read_text()
    assert "the CRD was deleted" in text
    assert "Traceback" not in text
    assert not [line for line in one.lines() if line["level"] == "error"], text


async def test_of_two_operators_one_writes_and_the_other_takes_over(tmp_path: Path, free_ports: Ports) -> None:
    cluster = SmallCluster()
    cluster.put(cache_path("emoji"), cache("emoji", serving={"replicas": 0}))
    async with running(cluster, tmp_path) as kubeconfig, operator(kubeconfig, free_ports(2), "first") as first:
        await first.until(200)
        await written(cluster, "emoji")
        async with operator(kubeconfig, free_ports(2), "second") as second:
            await second.until(503, "the operator system/first serves all namespaces")
            assert any("system/first serves all namespaces" in line["event"] for line in second.lines())
            first.process.terminate()
            await second.until(200)
            cluster.put(cache_path("later"), cache("later", serving={"replicas": 0}))
            await written(cluster, "later")
        assert first.process.returncode == 0
        assert second.process.returncode == 0
    assert not [path for path in cluster.found if "/leases/" in path]
