"""Hot, Roll, NewSpace, scale: what a change costs those who draw meanwhile, and what becomes of the cache."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.cluster.kube import BIN, Kube, cache, eventually
from tests.cluster.pods import in_client, serving_pod, start_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

_LOAD = """
import os, sys, threading, time, diffcache
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
results, errors, longest = 0, 0, 0.0
with diffcache.Client("emoji:50051", retry_seconds=120) as client:
    while True:
        began = time.monotonic()
        try:
            client.generate(f"apple number {results % 7}, noto style", steps=4)
            results += 1
        except diffcache.GenerationError as error:
            errors += 1
            print(error, file=sys.stderr, flush=True)
        longest = max(longest, time.monotonic() - began)
        print(results, errors, round(longest, 1), flush=True)
"""
"""Draws until its standard input ends. Each line gives the number of pictures and of failures, and the longest wait in
seconds. It must end by itself: a program lives on in its container when the kubectl that started it is killed."""

_SEEDED = """
import diffcache
with diffcache.Client("emoji:50051") as client:
    print(client.generate("red apple, noto style", seed=7).result)
"""
"""The same request each time: EXACT as long as the cache is still there, however busy the machine is."""

_METRIC = """
import sys, urllib.request
for line in urllib.request.urlopen(f"http://{sys.argv[1]}:9095/metrics").read().decode().splitlines():
    if line.startswith(sys.argv[2]):
        print(line)
"""


@dataclass
class Load:
    """What somebody who draws all the time has seen so far."""

    pictures: int = 0
    failures: int = 0
    longest: float = 0.0  # seconds from asking to the picture, or to giving up

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            pictures, failures, longest = line.split()
            self.pictures, self.failures, self.longest = int(pictures), int(failures), float(longest)

    def wait_for_another(self) -> None:
        """From now on."""
        seen = self.pictures
        eventually(lambda: self.pictures > seen + 1 or self.failures, 120, what="another picture")


@contextmanager
def drawing(inside: Kube) -> Iterator[Load]:
    """It has begun when the body begins, and still gets pictures when that has ended."""
    command = [str(BIN / "kubectl"), "-n", inside.namespace, "exec", "-i", "client", "--", "python", "-c", _LOAD]
    load = Load()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(target=load.read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            load.wait_for_another()
            yield load
            load.wait_for_another()
        finally:
            process.stdin.close()
            process.wait(60)
    reader.join(10)


def draw_again(inside: Kube) -> str:
    (result,) = in_client(inside, _SEEDED)
    return result


def metric(inside: Kube, name: str) -> list[str]:
    """Samples of the serving pod whose line begins with `name`."""
    address = serving_pod(inside)["status"]["podIP"]
    return in_client(inside, _METRIC.replace("print(line)", "print(line.replace(' ', '='))"), address, name)


def value(inside: Kube, name: str) -> float:
    return sum(float(sample.rpartition("=")[2]) for sample in metric(inside, name))


def test_the_life_of_a_cache(operator: Kube, namespace: Kube) -> None:
    """One cache through all classes of change, for a pod takes its time to load."""
    namespace.apply(cache(cache={"spaceGraceSeconds": 0}))
    start_client(namespace)
    namespace.wait_ready("emoji")
    assert draw_again(namespace) == "MISS"
    a_hot_change_drops_nothing(namespace)
    a_roll_loses_nothing_of_a_client_that_retries(namespace)
    asleep_and_awake_the_cache_is_kept(namespace)
    a_new_space_begins_empty_and_the_old_one_is_purged(namespace)


def a_hot_change_drops_nothing(inside: Kube) -> None:
    before = serving_pod(inside)
    with drawing(inside) as load:
        inside.patch(
            "diffusioncache", "emoji", {"spec": {"cache": {"capacity": "32Mi"}, "serving": {"batch": {"maxSize": 2}}}}
        )
        # The kubelet looks once a minute, and its copy of the ConfigMap may be as old.
        eventually(lambda: value(inside, "diffcache_capacity_bytes") == 32 * 2**20, 150, every=2, what="taken over")
    assert load.failures == 0
    after = serving_pod(inside)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def a_roll_loses_nothing_of_a_client_that_retries(inside: Kube) -> None:
    before = serving_pod(inside)
    entries = value(inside, "diffcache_entries")
    with drawing(inside) as load:
        inside.patch("diffusioncache", "emoji", {"spec": {"serving": {"pod": {"labels": {"team": "art"}}}}})
        after = serving_pod(inside, other_than=before["metadata"]["uid"])
        inside.wait_ready("emoji")
    print(f"roll at one replica: {load.pictures} pictures, longest wait {load.longest} s")
    assert load.failures == 0
    assert after["metadata"]["labels"]["team"] == "art"
    assert value(inside, "diffcache_entries") >= entries
    assert draw_again(inside) == "EXACT"


def asleep_and_awake_the_cache_is_kept(inside: Kube) -> None:
    inside("scale", "diffusioncache", "emoji", "--replicas=0")
    inside.wait_reason("emoji", "ScaledToZero")
    eventually(lambda: not inside.list("pod", "diffcache.io/cache=emoji"), 60, what="no pod")
    assert inside.list("persistentvolumeclaim", "diffcache.io/cache=emoji")
    inside("scale", "diffusioncache", "emoji", "--replicas=1")
    inside.wait_reason("emoji", "Serving")
    assert draw_again(inside) == "EXACT"


def a_new_space_begins_empty_and_the_old_one_is_purged(inside: Kube) -> None:
    before = serving_pod(inside)
    inside.patch("diffusioncache", "emoji", {"spec": {"model": {"dtype": "BFloat16"}}})
    serving_pod(inside, other_than=before["metadata"]["uid"])
    inside.wait_ready("emoji")
    assert draw_again(inside) == "MISS"
    eventually(lambda: value(inside, 'diffcache_evictions_total{reason="space"}') > 0, 60, what="the old space purged")
    eventually(lambda: value(inside, "diffcache_entries") == 1, 60, what="only the new entry is left")


def test_what_becomes_of_the_volume(operator: Kube, namespace: Kube) -> None:
    """Changed while there is no pod: who owns the volume decides, and that is no part of a pod."""
    asleep = {"serving": {"image": "docker.io/diffcache/NOTHING:1"}}
    for name, policy in (("gone", "Delete"), ("kept", "Retain")):
        namespace.apply(cache(name, **asleep, reclaimPolicy=policy))
        namespace.wait_reason(name, "ImagePullFailed")
    eventually(lambda: owners(namespace, "gone") == ["gone"], 30)
    assert owners(namespace, "kept") == []
    namespace.patch("diffusioncache", "gone", {"spec": {"reclaimPolicy": "Retain"}})
    eventually(lambda: owners(namespace, "gone") == [], 30)
    namespace.patch("diffusioncache", "gone", {"spec": {"reclaimPolicy": "Delete"}})
    eventually(lambda: owners(namespace, "gone") == ["gone"], 30)
    namespace("delete", "statefulset", "gone")  # by hand: the volume, and with it the cache, stays
    namespace.wait_reason("gone", "ImagePullFailed")
    assert namespace.exists("persistentvolumeclaim", "data-gone-0")
    namespace("delete", "diffusioncache", "gone", "kept")
    eventually(lambda: not namespace.list("pod,statefulset,service,configmap", "diffcache.io/cache"), 60)
    eventually(lambda: not namespace.exists("persistentvolumeclaim", "data-gone-0"), 60)
    assert json.loads(namespace("get", "pvc", "data-kept-0", "-o", "json"))["status"]["phase"] == "Bound"
    namespace.apply(cache("kept", **asleep))  # made anew under its old name, it finds its volume
    eventually(lambda: owners(namespace, "kept") == ["kept"], 60)


def owners(inside: Kube, name: str) -> list[str]:
    claim = inside.get("persistentvolumeclaim", f"data-{name}-0")
    return [owner["name"] for owner in claim["metadata"].get("ownerReferences", [])]
