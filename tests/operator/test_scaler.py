"""The scaling loop against pods that tell their work and an API server that may refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from diffcache_operator.clients.api import ApiError
from diffcache_operator.clients.scrape import Scraper
from diffcache_operator.queue import GONE, Key
from diffcache_operator.scaling.loop import BLIND_SECONDS, LOOK_SECONDS, REFUSED_SECONDS, Scaler, ScalingReport
from tests.operator.api_server import CACHE, Objects, api_of, pod_metrics, ready_pod, resource

KEY = Key("demo", "emoji")
ADDRESS = "127.0.23.{}"
SHARED: dict[str, Any] = {
    "cache": {
        "store": {"type": "S3", "s3": {"bucket": "states"}},
        "ledger": {"type": "External", "external": {"address": "redis://redis:6379"}},
    },
    "index": {"type": "External", "external": {"uri": "http://milvus:19530"}},
}
REPLICAS: dict[str, Any] = {"f:spec": {"f:serving": {"f:replicas": {}}}}


class Bench:
    """A cache of `pods` pods that the loop looks at; `text` is what each exports."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.objects = Objects()
        self.now = 0.0
        self.text = exposed()
        self.news: list[Key] = []
        self.stack = stack

    async def begin(self, replicas: int, pods: int | None = None, **scaling: Any) -> Scaler:
        chosen = {"mode": "Operator", "maxReplicas": 4, "targetBacklogSeconds": 10} | scaling
        self.objects.put(CACHE, resource(serving={"replicas": replicas}, autoscaling=chosen, **SHARED))
        for number in range(replicas if pods is None else pods):
            address = ADDRESS.format(number + 1)
            self.objects.put(f"/api/v1/namespaces/demo/pods/emoji-{number}", ready_pod(number, address))
            await self.stack.enter_async_context(pod_metrics(address, lambda: self.text))
        api = await self.stack.enter_async_context(api_of(self.objects))
        return Scaler(api, Scraper(), self.news.append, lambda: self.now)

    @property
    def replicas(self) -> int:
        return int(self.objects.cache["spec"]["serving"]["replicas"])

    def writes(self) -> list[str]:
        return [path for _, path in self.objects.calls]


def exposed(pending: float = 0, device: float = 0, calls: float = 10) -> str:
    return (
        f"diffcache_pending_steps {pending}\n# TYPE diffcache_step_seconds histogram\n"
        f"diffcache_step_seconds_sum {calls * 0.5}\ndiffcache_step_seconds_count {calls}\n"
        f"# TYPE diffcache_device_seconds counter\ndiffcache_device_seconds_total {device}\n"
    )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(stack)


def condition(scaler: Scaler) -> tuple[str, str]:
    told = scaler.report(KEY)
    assert isinstance(told, ScalingReport)
    return told.condition.status, told.condition.reason


async def test_more_work_more_pods_through_the_scale_subresource(bench: Bench) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)  # 30 s of work for one pod
    assert await scaler.step(KEY) == LOOK_SECONDS
    assert bench.replicas == 3
    assert bench.writes() == [f"{CACHE}/scale"]
    told = scaler.report(KEY)
    assert told is not None
    assert told.last is not None
    assert told.last.replicas == 3
    assert "backlog" in told.last.message
    assert condition(scaler) == ("True", "Following")
    assert bench.news == [KEY]


async def test_at_rest_nothing_is_written_and_nothing_is_new(bench: Bench) -> None:
    scaler = await bench.begin(2)
    for _ in range(5):
        await scaler.step(KEY)
        bench.now += LOOK_SECONDS
    assert bench.writes() == []
    assert bench.news == [KEY]  # once: that it follows


async def test_pods_go_after_the_window_and_never_the_last(bench: Bench) -> None:
    scaler = await bench.begin(3, scaleDownStabilizationSeconds=60)
    seen = []
    for _ in range(80):
        await scaler.step(KEY)
        seen.append((bench.now, bench.replicas))
        bench.now += LOOK_SECONDS
    assert bench.replicas == 1
    assert all(count == 3 for at, count in seen if at < 60)


async def test_a_pod_that_starts_is_nothing_to_warn_of(bench: Bench) -> None:
    scaler = await bench.begin(1, pods=0)
    for _ in range(9):
        await scaler.step(KEY)
        bench.now += LOOK_SECONDS
    assert condition(scaler) == ("False", "NoPod")
    assert bench.writes() == []


async def test_who_does_not_answer_is_not_taken_away(bench: Bench) -> None:
    scaler = await bench.begin(2, pods=1, scaleDownStabilizationSeconds=10)
    silent = ready_pod(1, ADDRESS.format(99))
    bench.objects.put("/api/v1/namespaces/demo/pods/emoji-1", silent)
    for _ in range(20):
        await scaler.step(KEY)
        bench.now += LOOK_SECONDS
    assert bench.replicas == 2
    assert condition(scaler) == ("False", "NoData")


async def test_blind_it_keeps_the_count_and_says_so_after_a_while(bench: Bench) -> None:
    scaler = await bench.begin(2)
    await scaler.step(KEY)
    bench.text = "<html>"
    bench.now += LOOK_SECONDS
    await scaler.step(KEY)
    assert condition(scaler) == ("True", "Following")
    bench.now += BLIND_SECONDS
    await scaler.step(KEY)
    assert condition(scaler) == ("False", "NoData")
    bench.text = exposed()
    bench.now += LOOK_SECONDS
    await scaler.step(KEY)
    assert condition(scaler) == ("True", "Following")
    assert bench.replicas == 2


@pytest.mark.parametrize("status", [422, 403])
async def test_a_refusal_is_told_in_the_servers_words(bench: Bench, status: int) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)
    bench.objects.refusal = (status, "serving.replicas above 1 needs a cache that replicas can share")
    assert await scaler.step(KEY) == REFUSED_SECONDS
    assert condition(scaler) == ("False", "Refused")
    told = scaler.report(KEY)
    assert told is not None
    assert "needs a cache that replicas can share" in told.condition.message
    bench.objects.refusal = None
    await scaler.step(KEY)
    assert condition(scaler) == ("True", "Following")


async def test_a_write_of_somebody_else_comes_first(bench: Bench) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)

    def somebody(verb: str, path: str) -> None:
        bench.objects.before_write = lambda verb, path: None
        bench.objects.put(CACHE, bench.objects.cache)

    bench.objects.before_write = somebody
    again = await scaler.step(KEY)
    assert isinstance(again, float)
    assert again < LOOK_SECONDS
    assert bench.replicas == 1
    await scaler.step(KEY)
    assert bench.replicas == 3


async def test_a_server_in_trouble_is_the_queues_to_try_again(bench: Bench) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)
    bench.objects.refusal = (500, "etcd")
    with pytest.raises(ApiError):
        await scaler.step(KEY)


async def test_asleep_is_left_asleep(bench: Bench) -> None:
    scaler = await bench.begin(0)
    await scaler.step(KEY)
    assert condition(scaler) == ("False", "ScaledToZero")
    assert bench.writes() == []


async def test_beside_another_autoscaler_it_keeps_out(bench: Bench) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)

    def written_by(manager: str, replicas: int) -> None:
        cache = bench.objects.cache
        cache["metadata"]["managedFields"] = [{"manager": manager, "subresource": "scale", "fieldsV1": REPLICAS}]
        cache["spec"]["serving"]["replicas"] = replicas
        bench.objects.put(CACHE, cache)

    written_by("kube-controller-manager", 1)  # from before the loop was told to scale
    await scaler.step(KEY)
    assert bench.replicas == 3
    written_by("kube-controller-manager", 1)  # it is alive
    for _ in range(3):
        bench.now += LOOK_SECONDS
        await scaler.step(KEY)
    assert condition(scaler) == ("False", "OtherScaler")
    assert bench.replicas == 1
    assert bench.writes() == [f"{CACHE}/scale"]
    written_by("kubectl", 2)  # a person has decided
    await scaler.step(KEY)
    assert condition(scaler) == ("True", "Following")
    assert bench.replicas > 2


async def test_an_operator_that_has_just_started_keeps_out_as_well(bench: Bench) -> None:
    scaler = await bench.begin(1)
    bench.text = exposed(pending=60)
    cache = bench.objects.cache
    entry = {"manager": "kube-controller-manager", "subresource": "scale", "fieldsV1": REPLICAS}
    cache["metadata"]["managedFields"] = [entry]
    cache["status"] = {"autoscaling": {"replicas": 3}}
    bench.objects.put(CACHE, cache)
    await scaler.step(KEY)
    assert condition(scaler) == ("False", "OtherScaler")
    assert bench.writes() == []


async def test_told_off_it_forgets(bench: Bench) -> None:
    scaler = await bench.begin(2)
    await scaler.step(KEY)
    bench.objects.put(CACHE, resource(serving={"replicas": 2}, autoscaling={"mode": "Disabled"}, **SHARED))
    assert await scaler.step(KEY) is GONE
    assert scaler.report(KEY) is None
    del bench.objects.found[CACHE]
    assert await scaler.step(KEY) is GONE
