"""The number of pods follows the work that the cache leaves; the same load without the cache keeps more of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.kube import BIN, Kube, eventually
from tests.cluster.pods import start_client
from tests.cluster.shared import SMALL, shared_cache, start_s3

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

LOAD = """
import asyncio, sys, diffcache

async def ask(client, number, mode):
    try:
        await client.generate(f"apple number {number % 40}, noto style", seed=number % 40, cache_mode=mode)
    except diffcache.GenerationError as error:
        print(error, file=sys.stderr, flush=True)

async def main(rate, mode):
    async with diffcache.AsyncClient("dns:///emoji-pods:50051", retry_seconds=60) as client:
        asked, number = set(), 0
        while True:
            asked.add(task := asyncio.create_task(ask(client, number, mode)))
            task.add_done_callback(asked.discard)
            number += 1
            await asyncio.sleep(1 / rate)

asyncio.run(main(float(sys.argv[1]), diffcache.CacheMode[sys.argv[2]]))
"""
"""So many requests a second, whoever has answered; forty different ones, over and over."""

RATE, SCALING_DOWN_SECONDS = 3.0, 45
SCALING = {
    "mode": "Operator",
    "minReplicas": 1,
    "maxReplicas": 3,
    "targetBacklogSeconds": 3,
    "scaleDownStabilizationSeconds": SCALING_DOWN_SECONDS,
}


@contextmanager
def load(inside: Kube, mode: str) -> Iterator[None]:
    """While the body runs."""
    command = [str(BIN / "kubectl"), "-n", inside.namespace, "exec", "client", "--"]
    with subprocess.Popen([*command, "python", "-c", LOAD, str(RATE), mode]) as process:
        try:
            yield
        finally:
            process.terminate()
    inside("exec", "client", "--", "python", "-c", "import os, signal; os.kill(-1, signal.SIGTERM)")


def replicas(inside: Kube) -> int:
    return int(inside.get("diffusioncache", "emoji")["spec"]["serving"]["replicas"])


def fewest(inside: Kube, seconds: float) -> int:
    """The smallest number of replicas that was asked for in so much time."""
    began, seen = time.monotonic(), [replicas(inside)]

    def look() -> bool:
        seen.append(replicas(inside))
        return time.monotonic() - began >= seconds

    eventually(look, seconds + 30, every=3)
    return min(seen)


def saved(inside: Kube) -> float:
    return float(inside.get("diffusioncache", "emoji")["status"]["cache"]["stepsSavedRatio"] or 0)


def test_pods_follow_the_work_that_the_cache_leaves(operator: Kube, namespace: Kube) -> None:
    start_s3(namespace)
    namespace.apply(shared_cache(replicas=1, serving=SMALL, autoscaling=SCALING))
    start_client(namespace)
    namespace.wait_ready("emoji")

    with load(namespace, "DEFAULT"):
        eventually(lambda: replicas(namespace) >= 2, 180, every=2, what="more pods")
        early = saved(namespace)
        eventually(lambda: replicas(namespace) == 1, 400, every=2, what="fewer pods under the same load")
        assert saved(namespace) > early
        warm = replicas(namespace)
    with load(namespace, "BYPASS"):
        eventually(lambda: replicas(namespace) > warm, 240, every=2, what="more pods without the cache")
        assert fewest(namespace, 2 * SCALING_DOWN_SECONDS) > warm, "and they are needed as long as the load lasts"
    told = namespace.get("diffusioncache", "emoji")["status"]["autoscaling"]
    assert told["replicas"] == replicas(namespace)
    assert "backlog" in told["message"]
    one_writer(namespace)


def one_writer(inside: Kube) -> None:
    """Of spec.serving.replicas, as managedFields tell."""
    fields = json.loads(inside("get", "diffusioncache", "emoji", "-o", "json", "--show-managed-fields"))["metadata"]
    writers = [
        entry["manager"]
        for entry in fields["managedFields"]
        if "f:replicas" in json.dumps(entry["fieldsV1"].get("f:spec", {}).get("f:serving", {}))
    ]
    assert writers == ["diffcache-autoscaler"]


def test_a_switch_of_mode_replaces_no_pod(operator: Kube, namespace: Kube) -> None:
    start_s3(namespace)
    namespace.apply(shared_cache(replicas=4))
    eventually(lambda: len(uids(namespace)) == 4, 240, every=2, what="four pods")
    before = uids(namespace)
    for mode in ("Operator", "Disabled"):
        namespace.patch(
            "diffusioncache",
            "emoji",
            {"spec": {"autoscaling": {"mode": mode, "minReplicas": 1, "maxReplicas": 4}}},
        )
        if mode == "Operator":
            namespace.wait_reason("emoji", "Following", "ScalingActive")  # the loop has had its look
        namespace.wait_ready("emoji")
        assert uids(namespace) == before


def uids(inside: Kube) -> set[str]:
    pods = inside.list("pod", "app.kubernetes.io/component=serving")
    return {str(pod["metadata"]["uid"]) for pod in pods if "deletionTimestamp" not in pod["metadata"]}
