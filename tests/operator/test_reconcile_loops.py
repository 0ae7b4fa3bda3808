"""The loops inside a reconcile: what is written, in which order, and what is left of it when it breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from diffcache_core.names import LEVEL, METRICS_PORT, TUNING_REVISION
from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.clients.prometheus import Access, Prometheus
from diffcache_operator.clients.scrape import Scraper
from diffcache_operator.metrics import Metrics
from diffcache_operator.pod_figures import PodFigures
from diffcache_operator.queue import Key
from diffcache_operator.reconcile import Reconciler
from diffcache_operator.scaling.loop import Scaler
from diffcache_operator.settings import Settings
from diffcache_operator.tuning.inquiries import Inquiries
from diffcache_operator.tuning.loop import Tuner
from tests.operator.api_server import CACHE, JSON, Objects, api_of, pod_metrics, ready_pod, resource
from tests.operator.http_server import serving
from tests.operator.tuning_bench import T0, FakePrometheus

KEY = Key("demo", "emoji")
ADDRESS = "127.0.24.1"
RESYNC = 600.0
CONFIG = "/api/v1/namespaces/demo/configmaps/emoji-config"
STATUS = f"{CACHE}/status"
STATEFUL_SET = "/apis/apps/v1/namespaces/demo/statefulsets/emoji"


async def nobody_elses(namespace: str) -> bool:
    return True


class Bench:
    def __init__(self, api: Api, objects: Objects, url: str) -> None:
        self.api, self.objects, self.url = api, objects, url
        self.now, self.revision, self.entries = T0, 0, 0
        self.scaled: list[Key] = []
        self.begin_anew()

    def begin_anew(self) -> None:
        """As an operator that has just started: it remembers nothing."""
        access, scraper = Access(self.url), Scraper()
        self.pod_figures = PodFigures(scraper, lambda key: None, lambda key: None)
        self.inquiries = Inquiries(Prometheus(access), lambda key: None, lambda key: None, lambda: self.now)
        tuner = Tuner(access, self.inquiries, lambda: self.now, lambda: self.now)
        scaler = Scaler(self.api, scraper, lambda key: None)
        settings = Settings(serving_image="serving:1")
        self.reconciler = Reconciler(
            self.api,
            settings,
            Metrics(),
            self.pod_figures,
            tuner,
            scaler,
            self.scaled.append,
            on_progress=lambda key: None,
            may_write=nobody_elses,
        )

    def metrics(self) -> str:
        tuning = f'{TUNING_REVISION} {self.revision}\n{LEVEL}{{skip="20"}} 0.9\n'
        return f"{tuning}diffcache_index_up 1\ndiffcache_entries {self.entries}\n"

    async def reconcile(self, after: float = 0.0) -> None:
        """What is asked beside it is answered, and taken by the next one."""
        self.now += after
        for _ in range(3):
            await self.reconciler.reconcile(KEY)
            await self.pod_figures.step(KEY)
            await self.inquiries.step(KEY)
        live = self.objects.found[STATEFUL_SET]
        generation = live["metadata"]["generation"]
        live["status"] = {"observedGeneration": generation, "updateRevision": "one", "replicas": 1}

    @property
    def config(self) -> str:
        return str(self.objects.found[CONFIG]["data"]["serving.json"])

    @property
    def status(self) -> JSON:
        return dict(self.objects.cache["status"])

    def condition(self, kind: str) -> tuple[str, str] | None:
        found = [one for one in self.status["conditions"] if one["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def events(self) -> list[str]:
        return [event["reason"] for event in self.objects.events]

    def writes(self, path: str) -> int:
        return sum(one == path for _, one in self.objects.calls)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def begin(**spec: Any) -> Bench:
            objects = Objects()
            objects.put(CACHE, resource(**spec))
            objects.put("/api/v1/namespaces/demo/pods/emoji-0", ready_pod(0, ADDRESS))
            url = await stack.enter_async_context(serving(FakePrometheus().answer))
            bench = Bench(await stack.enter_async_context(api_of(objects)), objects, url)
            await stack.enter_async_context(pod_metrics(ADDRESS, bench.metrics))
            await bench.reconcile()
            await bench.reconcile(after=1)
            return bench

        yield begin


async def test_a_decision_is_in_the_status_before_a_pod_hears_of_it(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Auto"})
    assert bench.condition("Ready") == ("True", "Serving")
    seen: list[tuple[str, int]] = []

    def before_write(verb: str, path: str) -> None:
        if path == CONFIG:
            seen.append((path, bench.status["tuning"]["revision"]))

    bench.objects.before_write = before_write
    await bench.reconcile(after=3600)
    assert seen == [(CONFIG, 1)]
    assert '"revision": 1' in bench.config
    assert '"similarity": 0.85' in bench.config
    assert bench.condition("TuningActive") == ("True", "Tuned")
    assert bench.condition("Ready") == ("True", "Serving")


async def test_a_crash_between_the_two_ends_the_same(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Auto"})

    gone = False

    def crash(verb: str, path: str) -> None:
        nonlocal gone
        gone = gone or path == CONFIG
        if gone:
            raise web.HTTPServiceUnavailable

    bench.objects.before_write = crash
    with pytest.raises(ApiError):
        await bench.reconcile(after=3600)
    decided = bench.status["tuning"]
    assert decided["revision"] == 1
    assert '"revision": 1' not in bench.config
    bench.objects.before_write = lambda verb, path: None
    bench.begin_anew()
    await bench.reconcile(after=1)
    assert '"revision": 1' in bench.config
    assert bench.status["tuning"]["revision"] == 1
    assert bench.status["tuning"]["history"] == decided["history"]


async def test_a_status_that_somebody_else_wrote_meanwhile_moves_nothing(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Auto"})

    def somebody(verb: str, path: str) -> None:
        if path == STATUS:
            bench.objects.put(CACHE, bench.objects.cache)

    bench.objects.before_write = somebody
    with pytest.raises(ApiError):
        await bench.reconcile(after=3600)
    assert '"revision": 1' not in bench.config


async def test_a_reconcile_waits_neither_for_pods_nor_for_prometheus(make: Callable[..., Any]) -> None:
    """A user can make both slow, and reconciles share their workers: what should be is applied all the same."""
    bench = await make(tuning={"mode": "Auto"})
    released = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        await released.wait()
        raise web.HTTPGone

    async with serving(silent) as url, serving(silent, host="127.0.24.2", port=METRICS_PORT):
        changed = bench.objects.cache
        changed["spec"]["prometheus"] = {"url": url}
        bench.objects.put(CACHE, changed)
        bench.now += 3600
        assert await bench.reconciler.reconcile(KEY) == RESYNC  # and leaves its question
        asking = asyncio.create_task(bench.inquiries.step(KEY))
        pod = ready_pod(0, "127.0.24.2")
        pod["metadata"]["uid"] = "another"
        bench.objects.put("/api/v1/namespaces/demo/pods/emoji-0", pod)
        await bench.reconciler.reconcile(KEY)
        asking_pods = asyncio.create_task(bench.pod_figures.step(KEY))
        changed = bench.objects.cache
        changed["spec"]["cache"] = {"capacity": "128Mi"}
        bench.objects.put(CACHE, changed)
        await bench.reconciler.reconcile(KEY)
        assert not asking.done()
        assert not asking_pods.done()
        released.set()
        await asyncio.gather(asking, asking_pods)
    await bench.reconciler.reconcile(KEY)
    assert f'"capacity_bytes": {128 * 2**20}' in bench.config


async def test_what_is_recommended_reaches_no_pod(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Recommend"})
    config = bench.config
    await bench.reconcile(after=3600)
    assert bench.config == config
    assert bench.status["tuning"]["decision"].startswith("would be Loosened")


async def test_at_rest_nothing_is_written(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Recommend"})
    await bench.reconcile(after=3600)
    writes, events = len(bench.objects.calls), bench.events()
    for _ in range(5):
        await bench.reconcile(after=61)
    assert len(bench.objects.calls) == writes
    assert bench.events() == events


async def test_the_first_entries_of_a_cache_are_told_at_once(make: Callable[..., Any]) -> None:
    """Later figures may wait a minute for one another."""
    bench = await make()
    assert bench.status["cache"]["entries"] == 0
    bench.entries = 3
    await bench.reconcile()
    assert bench.status["cache"]["entries"] == 3
    bench.entries = 4
    await bench.reconcile()
    assert bench.status["cache"]["entries"] == 3


async def test_what_was_put_right_stands_in_status_and_events_and_not_again_and_again(make: Callable[..., Any]) -> None:
    bench = await make()
    assert "correction" not in bench.status
    for _ in range(3):  # as something does that scales the StatefulSet all the time
        live = bench.objects.found[STATEFUL_SET]
        live["spec"]["replicas"] = 3
        await bench.reconcile()
        assert bench.objects.found[STATEFUL_SET]["spec"]["replicas"] == 1
    assert bench.status["correction"]["message"] == "StatefulSet emoji: spec.replicas changed"
    assert bench.events().count("PutRight") == 1
    del bench.objects.found[CONFIG]
    await bench.reconcile()
    assert bench.status["correction"]["message"] == "ConfigMap emoji-config: was deleted"
    assert bench.events().count("PutRight") == 2


async def test_switched_off_the_spec_holds_again_and_what_was_stays_to_be_read(make: Callable[..., Any]) -> None:
    bench = await make(tuning={"mode": "Auto"})
    await bench.reconcile(after=3600)
    off = bench.objects.cache
    off["spec"]["tuning"] = {"mode": "Disabled"}
    bench.objects.put(CACHE, off)
    await bench.reconcile(after=1)
    assert bench.condition("TuningActive") is None
    assert '"levels": null' in bench.config
    assert bench.status["tuning"]["history"][0]["reason"] == "Loosened"
    again = bench.objects.cache
    again["spec"]["tuning"] = {"mode": "Auto"}
    bench.objects.put(CACHE, again)
    await bench.reconcile(after=1)
    assert bench.status["tuning"]["revision"] == 2  # not one that a pod might still tell of


async def test_a_change_of_nothing_but_the_number_of_pods_leaves_ready(make: Callable[..., Any]) -> None:
    shared = {
        "cache": {
            "store": {"type": "S3", "s3": {"bucket": "states"}},
            "ledger": {"type": "External", "external": {"address": "redis://redis:6379"}},
        },
        "index": {"type": "External", "external": {"uri": "http://milvus:19530"}},
    }
    bench = await make(**shared, autoscaling={"mode": "Operator", "maxReplicas": 4})
    assert set(bench.scaled) == {KEY}
    changed = bench.objects.cache
    changed["spec"]["serving"] = {"replicas": 3}
    bench.objects.put(CACHE, changed)
    await bench.reconciler.reconcile(KEY)  # the StatefulSet's controller has not looked yet
    live = bench.objects.found[STATEFUL_SET]
    assert live["spec"]["replicas"] == 3
    assert live["status"]["observedGeneration"] < live["metadata"]["generation"]
    assert bench.condition("Ready") == ("True", "Serving")
    changed = bench.objects.cache
    changed["spec"]["serving"] = {"replicas": 3, "image": "serving:2"}
    bench.objects.put(CACHE, changed)
    await bench.reconciler.reconcile(KEY)
    assert bench.condition("Ready") == ("False", "RollingOut")


CLAIM = "/api/v1/namespaces/demo/persistentvolumeclaims/data-emoji-0"


def with_a_volume(bench: Bench) -> None:
    labels = {"diffcache.io/cache": "emoji"}
    metadata = {"name": "data-emoji-0", "namespace": "demo", "generation": 0, "labels": labels}
    spec = {"resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "fast"}
    status = {"phase": "Bound", "capacity": {"storage": "10Gi"}}
    bench.objects.put(CLAIM, {"metadata": metadata, "spec": spec, "status": status})


def change(bench: Bench, **spec: Any) -> None:
    live = bench.objects.cache
    metadata = live["metadata"] | {"generation": live["metadata"]["generation"] + 1}
    bench.objects.put(CACHE, live | {"metadata": metadata, "spec": live["spec"] | spec})


async def test_a_larger_volume_grows_while_its_pod_serves(make: Callable[..., Any]) -> None:
    bench = await make()
    with_a_volume(bench)
    await bench.reconcile(after=1)
    before = bench.writes(STATEFUL_SET)
    change(bench, cache={"store": {"volume": {"size": "20Gi"}}})
    await bench.reconcile(after=1)
    claim = bench.objects.found[CLAIM]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert bench.condition("Ready") == ("True", "Serving")
    assert bench.condition("Reconciling") == ("True", "VolumeExpanding")
    claim["status"]["capacity"]["storage"] = "20Gi"  # the driver has done it
    await bench.reconcile(after=1)
    assert bench.condition("Reconciling") is None
    assert bench.writes(STATEFUL_SET) == before


async def test_a_volume_that_cannot_grow_holds_nothing_else_up(make: Callable[..., Any]) -> None:
    bench = await make()
    with_a_volume(bench)

    def refuse(verb: str, path: str) -> None:
        if path == CLAIM and bench.objects.found[CLAIM]["metadata"].get("ownerReferences"):
            raise web.HTTPForbidden(text='{"message": "the storageclass must support resize"}')

    bench.objects.before_write = refuse
    change(bench, cache={"capacity": "48Mi", "store": {"volume": {"size": "20Gi"}}})
    await bench.reconcile(after=1)
    await bench.reconcile(after=1)
    assert bench.condition("Stalled") == ("True", "VolumeNotExpanded")
    assert bench.condition("Ready") == ("True", "Serving")
    assert str(48 * 2**20) in bench.config
    change(bench, cache={"capacity": "48Mi"})
    await bench.reconcile(after=1)
    assert bench.condition("Stalled") is None
