"""Several pods on one cache: what one has drawn another resumes from; whoever is killed loses only what it was at."""

from __future__ import annotations

import pytest

from diffcache_core.names import CACHE_LABEL
from tests.cluster.kube import JSON, Kube, cache, eventually
from tests.cluster.pods import draw, in_client, start_client
from tests.cluster.shared import shared_cache, start_s3

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

APPLE, SIMILAR = "red apple, noto style", "red apple, flat style"

_AT = """
import sys, diffcache
with diffcache.Client(sys.argv[1] + ":50051") as client:
    print(client.generate(sys.argv[2], seed=7, cache_mode=diffcache.CacheMode[sys.argv[3]]).result)
"""
"""At one pod, by its address."""

_SPREAD = """
import diffcache
with diffcache.Client("dns:///emoji-pods:50051", retry_seconds=120) as client:
    for number in range(12):
        client.generate(f"pear number {number}, noto style")
print("done")
"""
"""At all pods by turns."""

_METRIC = """
import sys, urllib.request
for line in urllib.request.urlopen(f"http://{sys.argv[1]}:9095/metrics").read().decode().splitlines():
    if line.startswith(sys.argv[2]):
        print(line.rpartition(" ")[2])
"""


def addresses(inside: Kube) -> list[str]:
    """Of the serving pods, by their names; all are ready."""
    pods = sorted(serving_pods(inside), key=lambda pod: str(pod["metadata"]["name"]))
    return [pod["status"]["podIP"] for pod in pods]


def serving_pods(inside: Kube) -> list[JSON]:
    return inside.list("pod", f"{CACHE_LABEL}=emoji,app.kubernetes.io/component=serving")


def draw_at(inside: Kube, address: str, prompt: str, mode: str = "READ_ONLY") -> str:
    (result,) = in_client(inside, _AT, address, prompt, mode)
    return result


def finds(inside: Kube, address: str, prompt: str, result: str) -> None:
    """Nothing is kept by asking, so what is found was there; a busy machine gives up a look-up now and then."""
    eventually(lambda: draw_at(inside, address, prompt) == result, 60, what=f"{result} at {address}")


def metric(inside: Kube, address: str, name: str) -> float:
    return sum(map(float, in_client(inside, _METRIC, address, name)))


def test_two_pods_share_a_cache(operator: Kube, namespace: Kube) -> None:
    start_s3(namespace)
    namespace.apply(shared_cache())
    start_client(namespace)
    namespace.wait_ready("emoji")
    eventually(lambda: namespace.get("diffusioncache", "emoji")["status"]["readyReplicas"] == 2, 120)
    assert namespace.get("poddisruptionbudget", "emoji")["spec"]["maxUnavailable"] == 1

    first, second = addresses(namespace)
    assert draw_at(namespace, first, APPLE, "DEFAULT") == "MISS"
    finds(namespace, second, APPLE, "EXACT")
    finds(namespace, second, SIMILAR, "APPROXIMATE")

    requests = 'diffcache_requests_total{model="emoji"'
    before = [metric(namespace, address, requests) for address in (first, second)]
    assert in_client(namespace, _SPREAD) == ["done"]
    after = [metric(namespace, address, requests) for address in (first, second)]
    assert all(now > then for now, then in zip(after, before, strict=True)), "both pods had their share"

    a_pod_is_killed(namespace)
    the_ledger_is_killed(namespace)
    the_bucket_is_lost(namespace)

    namespace("delete", "diffusioncache", "emoji")
    kinds = "statefulset,service,pod,persistentvolumeclaim,poddisruptionbudget"
    eventually(lambda: not namespace.list(kinds, CACHE_LABEL), 120, what="nothing left of it")


def a_pod_is_killed(inside: Kube) -> None:
    """With no time to drain; its cache is everybody's."""
    inside("delete", "pod", "emoji-0", "--grace-period=0", "--force")
    assert in_client(inside, _SPREAD) == ["done"]
    eventually(lambda: inside.get("diffusioncache", "emoji")["status"]["readyReplicas"] == 2, 120)
    for address in addresses(inside):
        finds(inside, address, APPLE, "EXACT")


def the_ledger_is_killed(inside: Kube) -> None:
    """And for a while the cluster does not let it come back: everything is a MISS, nothing a failure."""
    before = {pod["metadata"]["uid"] for pod in serving_pods(inside)}
    inside.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "full"},
            "spec": {"hard": {"pods": "1"}},
        }
    )
    eventually(lambda: inside.get("resourcequota", "full")["status"]["hard"])
    inside("delete", "pod", "emoji-redis-0", "--grace-period=1")
    assert draw(inside, APPLE, SIMILAR) == ["MISS", "MISS"]
    inside.wait_reason("emoji", "PodRefused", "LedgerReady")
    ready = inside.condition("emoji", "Ready")
    assert ready is not None
    assert ready["status"] == "True"
    inside("delete", "resourcequota", "full")
    inside("annotate", "statefulset", "emoji-redis", "test=again")  # its controller waits longer with each failure
    inside.wait_reason("emoji", "Up", "LedgerReady")
    for address in addresses(inside):
        finds(inside, address, APPLE, "EXACT")
    assert {pod["metadata"]["uid"] for pod in serving_pods(inside)} == before


def the_bucket_is_lost(inside: Kube) -> None:
    """With all that was in it."""
    inside("delete", "pod", "s3", "--grace-period=1")
    assert "http://s3:7070" in inside.wait_reason("emoji", "Down", "StoreReady")
    assert draw(inside, APPLE) == ["MISS"]
    start_s3(inside)
    inside.wait_reason("emoji", "Up", "StoreReady")
    first, second = addresses(inside)
    eventually(lambda: draw_at(inside, first, APPLE, "DEFAULT") == "EXACT", 60, what="it is kept again")
    finds(inside, second, APPLE, "EXACT")


def test_replicas_need_a_shared_cache(operator: Kube, namespace: Kube) -> None:
    """Refused where it is asked for, by `kubectl scale` too."""
    namespace.apply(cache(serving={"replicas": 0}))
    told = namespace.refused("scale", "diffusioncache", "emoji", "--replicas=2")
    assert "needs a cache that replicas can share" in told
