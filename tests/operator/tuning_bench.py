"""A resource that the tuner looks at again and again, and the Prometheus that answers it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from diffcache_core.cache.resume import Level
from diffcache_core.names import (
    QUALITY_PAIRS,
    QUALITY_SUM,
    REQUEST_SECONDS,
    SHADOW_RUNS,
    START_TIME,
    STEPS,
    STEPS_SKIPPED,
)
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import Condition, DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning.record import time_text
from diffcache_operator.clients.prometheus import Access, Prometheus
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed
from diffcache_operator.queue import Key
from diffcache_operator.tuning.inquiries import Inquiries
from diffcache_operator.tuning.loop import Tuned, Tuner
from tests.operator.api_server import ready_pod
from tests.operator.http_server import serving
from tests.operator.resources import as_pods, cache

T0 = 1_800_000_000.0
LEVELS = (Level(20, 0.9),)
MOMENTS = {"c": 0.6, "u": 0.6, "cc": 0.36, "uu": 0.36, "cu": 0.36}  # as good with the cache as without


def counters(name: str, at: float) -> list[tuple[dict[str, str], float]]:
    """Of one pod that answers a request a second and compares in the bin below its level."""
    count = at - T0 + 1000
    pair = {"skip": "20", "similarity": "0.85"}
    if name == QUALITY_SUM:
        return [(pair | {"moment": moment}, count * q) for moment, q in MOMENTS.items()]
    if name == REQUEST_SECONDS + "_bucket":
        return [({"model": "m", "result": "miss", "le": le}, count) for le in ("1.0", "+Inf")]
    values: dict[str, list[tuple[dict[str, str], float]]] = {
        START_TIME: [({}, T0 - 1000)],
        STEPS: [({}, 8 * count)],
        STEPS_SKIPPED: [({}, 2 * count)],
        QUALITY_PAIRS: [(pair, count)],
        SHADOW_RUNS: [({"outcome": "compared"}, count), ({"outcome": "dropped"}, 0.0)],
    }
    return values.get(name, [])


class FakePrometheus:
    """Answers from a function of time."""

    def __init__(self) -> None:
        self.say: Callable[[str, float], list[tuple[dict[str, str], float]]] = counters
        self.asked = 0
        self.pod = "emoji-0"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        query, parameters = request.query["query"], request.query
        if request.path.endswith("/query"):
            at = float(parameters["time"])
            return _json("vector", [{"metric": {"pod": self.pod}, "value": [at, f"{at - 5}"]}])
        start, end, step = (float(parameters[name]) for name in ("start", "end", "step"))
        times = [start + i * step for i in range(int((end - start) // step) + 1)]
        name = query.partition("{")[0]
        found: dict[str, list[tuple[float, str]]] = {}
        for at in times:
            for labels, value in self.say(name, at):
                found.setdefault(json.dumps(labels), []).append((at, str(value)))
        own = {"__name__": name, "pod": self.pod, "namespace": "demo", "job": "pods"}
        return _json("matrix", [{"metric": own | json.loads(key), "values": values} for key, values in found.items()])


def _json(kind: str, result: object) -> web.Response:
    return web.json_response({"status": "success", "data": {"resultType": kind, "result": result}})


class Bench:
    """A resource that is looked at again and again, as the reconcile does."""

    def __init__(self, url: str, prometheus: FakePrometheus) -> None:
        self.prometheus, self.now = prometheus, T0
        self.asks(Access(url))
        self.resource = tuned()
        self.status = DiffusionCacheStatus()
        self.revision = 0  # that the pods follow
        self.levels: frozenset[tuple[Level, ...]] = frozenset({LEVELS})
        self.pods = 1

    def asks(self, access: Access, **seconds: float) -> None:
        self.asked: list[Key] = []
        prometheus = Prometheus(access, lambda: self.now, **seconds)
        self.inquiries = Inquiries(prometheus, self.asked.append, lambda key: None, lambda: self.now)
        self.tuner = Tuner(access, self.inquiries, lambda: self.now, lambda: self.now)

    async def look(self, after: float = 0.0) -> Tuned:
        """What is asked is answered, and decided upon by the next look."""
        self.now += after
        found = self.look_once()
        if not self.asked:
            return found
        await self.inquiries.step(self.asked.pop())
        return self.look_once()

    def look_once(self) -> Tuned:
        figures = Figures(tuning_revisions=(self.revision,) * self.pods, levels=self.levels)
        pods = as_pods(*(ready_pod(number, "10.0.0.1") for number in range(self.pods)))
        found = self.tuner.look(self.resource, self.status, Observed({}, pods, figures=figures))
        assert found is not None
        state = found.condition
        condition = Condition(
            type=state.type,
            status=state.status,
            reason=state.reason,
            message=state.message,
            observed_generation=3,
            last_transition_time=time_text(self.now),
        )
        self.status = DiffusionCacheStatus(tuning=found.record, conditions=[condition])
        return found

    @property
    def record(self) -> TuningStatus:
        assert self.status.tuning is not None
        return self.status.tuning


def tuned(mode: str = "Auto", **more: Any) -> DiffusionCache:
    return cache(tuning={"mode": mode} | more)


@asynccontextmanager
async def bench_of(prometheus: FakePrometheus) -> AsyncIterator[Bench]:
    async with serving(prometheus.answer) as url:
        yield Bench(url, prometheus)
