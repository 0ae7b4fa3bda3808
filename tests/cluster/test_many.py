"""Three hundred caches at once, and then silence."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from diffcache_operator.scopes import RENEW_SECONDS
from tests.cluster.apiproxy import api_proxy
from tests.cluster.kube import Kube, cache, eventually
from tests.cluster.operatorprocess import operator_process
from tests.cluster.pods import draw, start_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

COUNT = 300
EVERYTHING = "diffusioncache,statefulset,service,configmap,serviceaccount,persistentvolumeclaim,pod"
SILENCE_SECONDS = 60.0
FIGURES_SECONDS = 60.0
"""Between two writes of a status in which only figures have moved."""


def versions(inside: Kube) -> dict[str, str]:
    """The resourceVersion of everything of the operator's."""
    return {
        f"{thing['kind']}/{thing['metadata']['name']}": thing["metadata"]["resourceVersion"]
        for thing in inside.list(EVERYTHING)
    }


def over(seconds: float) -> None:
    """Lets that much time pass: what is looked for is that nothing happens in it."""
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began >= seconds, seconds + 5, every=1)


def test_three_hundred_converge_and_then_nothing_is_written(
    kube: Kube, no_operator: Kube, namespace: Kube, tmp_path: Path
) -> None:
    with (
        api_proxy(Path(os.environ["KUBECONFIG"])) as proxy,
        operator_process(proxy.kubeconfig(tmp_path), tmp_path, namespace.namespace) as operator,
    ):
        namespace.apply(*(cache(f"many-{i:03}", serving={"replicas": 0}) for i in range(COUNT)))
        eventually(lambda: ready(namespace) == COUNT, 240, every=3, what=f"{COUNT} caches ready")
        print(f"{COUNT} caches: {operator.peak_memory() / 2**20:.0f} MiB at most, {len(proxy.writes())} writes")
        # Kubernetes' own controllers may have a queue: what they still write is not the operator's.
        eventually(lambda: seen_by_its_controller(namespace) == COUNT, 120, every=3, what="StatefulSets observed")
        before, writes = versions(namespace), len(proxy.writes())
        assert len(before) >= COUNT * 6
        over(SILENCE_SECONDS)
        written = [write.path for write in proxy.writes()[writes:]]
        assert not [path for path in written if "/leases/" not in path]
        assert (
            len(written) <= 2 * SILENCE_SECONDS / RENEW_SECONDS + 2
        )  # one Lease for what it watches, one in the namespace
        assert versions(namespace) == before
        assert "Traceback" not in operator.text()


def ready(inside: Kube) -> int:
    words = inside("get", "diffusioncache", "-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].reason}')
    return words.split().count("ScaledToZero")


def seen_by_its_controller(inside: Kube) -> int:
    words = inside("get", "statefulset", "-o", "jsonpath={.items[*].status.observedGeneration}")
    return len(words.split())


def test_a_loaded_cache_costs_one_status_write_a_minute(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache())
    start_client(namespace)
    namespace.wait_ready("emoji")
    eventually(lambda: figures(namespace), 60, what="the first figures")
    prompts = [f"apple number {i}, noto style" for i in range(8)]
    before = versions(namespace)
    began, seen = time.monotonic(), {before["DiffusionCache/emoji"]}
    while time.monotonic() - began < SILENCE_SECONDS + 30:
        draw(namespace, *prompts)
        seen.add(versions(namespace)["DiffusionCache/emoji"])
    after = versions(namespace)
    writes = len(seen) - 1
    print(f"{writes} status writes in {time.monotonic() - began:.0f} s under load")
    assert 1 <= writes <= (time.monotonic() - began) / FIGURES_SECONDS + 1
    assert {key for key in after if after[key] != before[key]} == {"DiffusionCache/emoji"}


def figures(inside: Kube) -> bool:
    return "entries" in inside.get("diffusioncache", "emoji")["status"].get("cache", {})
