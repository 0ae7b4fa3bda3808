"""From what pods and Prometheus say to the tuner's record and its condition."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from diffcache_core.cache.resume import Level
from diffcache_core.choices import DType
from diffcache_core.names import (
    SHADOW_RUNS,
    STEPS,
)
from diffcache_core.resource.status import DiffusionCacheStatus, LevelStatus
from diffcache_core.tuning.record import time_text
from diffcache_operator.clients.prometheus import Access, Prometheus, Source
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed
from diffcache_operator.queue import Key
from diffcache_operator.tuning.follow import TAKE_OVER_SECONDS
from diffcache_operator.tuning.inquiries import PLACES, Inquiries, Question
from diffcache_operator.tuning.loop import LOOK_SECONDS
from tests.operator.api_server import ready_pod
from tests.operator.http_server import serving
from tests.operator.resources import as_pods, cache
from tests.operator.tuning_bench import LEVELS, T0, Bench, FakePrometheus, bench_of, counters, tuned


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with bench_of(FakePrometheus()) as one:
        yield one


async def test_the_way_of_a_decision(bench: Bench) -> None:
    first = await bench.look()
    assert first.record.window_start == time_text(T0)
    assert (first.condition.reason, first.moved, bench.prometheus.asked) == ("WindowBegins", False, 0)

    decided = await bench.look(after=3600)
    assert decided.moved
    assert (decided.condition.status, decided.condition.reason) == ("True", "Tuned")
    assert (decided.record.revision, decided.record.window_start) == (1, "")
    assert decided.record.levels[0].similarity == "0.85"
    assert decided.record.history[0].reason == "Loosened"
    assert decided.record.history[0].inputs["pairs"] != "0"

    asked = bench.prometheus.asked
    waiting = await bench.look(after=5)  # the kubelet has not passed it on yet
    assert (waiting.condition, waiting.record) == (decided.condition, decided.record)
    assert bench.prometheus.asked == asked
    late = await bench.look(after=TAKE_OVER_SECONDS)
    assert (late.condition.status, late.condition.reason) == ("False", "WaitingForPods")

    bench.revision = 1
    again = await bench.look(after=5)
    assert again.record.window_start == time_text(bench.now)
    assert again.record.measured_since == time_text(T0)  # comparisons go on counting
    settled = await bench.look(after=900)
    assert not settled.moved
    assert settled.record.revision == 1


async def test_what_is_only_recommended_is_followed_by_nothing(bench: Bench) -> None:
    bench.resource = tuned("Recommend")
    await bench.look()
    told = await bench.look(after=3600)
    assert (told.condition.status, told.condition.reason) == ("True", "Recommended")
    assert told.record.decision.startswith("would be Loosened")
    assert told.record.window_start == time_text(T0)
    same = await bench.look(after=600)
    assert not same.moved
    assert same.record == told.record
    assert same.condition == told.condition


async def test_prometheus_is_asked_once_a_minute_at_most(bench: Bench) -> None:
    bench.prometheus.say = lambda name, at: []
    await bench.look()
    await bench.look(after=3600)
    asked = bench.prometheus.asked
    assert asked
    for _ in range(5):
        await bench.look(after=LOOK_SECONDS / 6)
    assert bench.prometheus.asked == asked
    await bench.look(after=LOOK_SECONDS)
    assert bench.prometheus.asked == 2 * asked


def nan(name: str, at: float) -> list[tuple[dict[str, str], float]]:
    return [(labels, float("nan") if name == STEPS else value) for labels, value in counters(name, at)]


def dropped(name: str, at: float) -> list[tuple[dict[str, str], float]]:
    more = [({"outcome": "dropped"}, at - T0)] if name == SHADOW_RUNS else []
    return [one for one in counters(name, at) if one[0] != {"outcome": "dropped"}] + more


@pytest.mark.parametrize(
    ("say", "reason"),
    [(nan, "BadData"), (dropped, "ShadowsDropped"), (lambda name, at: [], "TooFewSamples")],
)
async def test_what_freezes_it_is_told_and_moves_nothing(
    bench: Bench, say: Callable[[str, float], list[tuple[dict[str, str], float]]], reason: str
) -> None:
    bench.prometheus.say = say
    await bench.look()
    frozen = await bench.look(after=3600)
    assert (frozen.condition.status, frozen.condition.reason) == ("False", reason)
    assert (frozen.moved, frozen.record.revision, frozen.record.levels) == (False, 0, [])
    later = await bench.look(after=3600)
    assert (later.condition, later.record) == (frozen.condition, frozen.record)  # though its numbers have moved


async def test_without_prometheus_it_rests_and_goes_on_with_it(bench: Bench) -> None:
    bench.resource = cache(tuning={"mode": "Auto"}, prometheus={"url": "http://127.0.0.1:1"})
    await bench.look()
    frozen = await bench.look(after=3600)
    assert (frozen.condition.status, frozen.condition.reason) == ("False", "PrometheusFailed")
    bench.resource = tuned()
    assert (await bench.look(after=120)).condition.reason == "Tuned"


async def test_nobody_has_named_a_prometheus() -> None:
    bench = Bench("", FakePrometheus())
    await bench.look()
    condition = (await bench.look(after=3600)).condition
    assert (condition.status, condition.reason) == ("False", "NoPrometheus")
    assert "spec.prometheus.url" in condition.message


async def test_the_resources_own_prometheus_comes_before_the_charts(bench: Bench) -> None:
    other = FakePrometheus()
    async with serving(other.answer) as url:
        bench.resource = cache(tuning={"mode": "Auto"}, prometheus={"url": url})
        await bench.look()
        assert (await bench.look(after=3600)).moved
    assert other.asked > 0
    assert bench.prometheus.asked == 0


async def test_the_last_ten_decisions_are_kept(bench: Bench) -> None:
    for percent in range(80, 92):
        bench.resource = tuned(quality={"targetPercent": percent})
        record = (await bench.look(after=60)).record
    assert [entry.revision for entry in record.history] == list(range(11, 1, -1))


async def test_a_changed_spec_sets_it_back(bench: Bench) -> None:
    since = (await bench.look()).record.measured_since
    await bench.look(after=3600)
    bench.revision = 1
    bench.resource = tuned(quality={"targetPercent": 90})
    reset = await bench.look(after=60)
    assert reset.moved
    assert (reset.record.revision, reset.record.levels, reset.record.window_start) == (2, [], "")
    assert reset.record.measured_since == since, "another target needs no new pictures"
    assert reset.record.history[0].reason == "Reset"
    assert (await bench.look(after=5)).record.window_start == ""
    bench.revision = 2
    again = await bench.look(after=5)
    assert (again.record.window_start, again.record.measured_since) == (time_text(bench.now), since)


async def test_figures_of_another_model_do_not_count(bench: Bench) -> None:
    await bench.look()
    await bench.look(after=3600)
    bench.revision = 1
    bench.resource = tuned()
    changed = bench.resource.spec.model.model_copy(update={"dtype": DType.BFLOAT16})
    bench.resource = bench.resource.model_copy(
        update={"spec": bench.resource.spec.model_copy(update={"model": changed})}
    )
    assert (await bench.look(after=60)).record.measured_since == ""


async def test_what_has_nothing_to_do_with_it_leaves_the_record(bench: Bench) -> None:
    await bench.look()
    decided = (await bench.look(after=3600)).record
    assert decided.revision == 1
    bench.revision = 1
    cache = bench.resource.spec.cache.model_copy(update={"space_grace_seconds": 7})
    bench.resource = bench.resource.model_copy(update={"spec": bench.resource.spec.model_copy(update={"cache": cache})})
    assert (await bench.look(after=60)).record.levels == decided.levels != []


async def test_a_prometheus_that_dawdles_is_given_up() -> None:
    """It answers the first question and not the others: reconciles wait for all of them together only so long."""
    prometheus, released = FakePrometheus(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if prometheus.asked:
            await released.wait()
        return await prometheus.answer(request)

    async with serving(answer) as url:
        slow = Bench(url, prometheus)
        slow.asks(Access(url), look_seconds=0.2)
        await slow.look()
        condition = (await slow.look(after=3600)).condition
        released.set()
    assert (condition.status, condition.reason) == ("False", "PrometheusSlow")


async def test_series_of_pods_that_are_none_of_its_own_are_no_evidence(bench: Bench) -> None:
    """A name such as emoji-7 is not reserved. Those of pods that there were count on."""
    asked: set[str] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.update(re.findall(r"emoji-\d+", request.query["query"]))
        return await bench.prometheus.answer(request)

    async with serving(answer) as url:
        bench.asks(Access(url))
        bench.pods, bench.prometheus.pod = 2, "emoji-7"
        await bench.look()
        assert (await bench.look(after=3600)).condition.reason == "NoData"
        assert asked == {"emoji-0", "emoji-1"}
        bench.pods, bench.prometheus.pod = 1, "emoji-1"
        assert (await bench.look(after=3600)).condition.reason == "Tuned"
        assert asked == {"emoji-0", "emoji-1"}


async def test_an_answer_to_an_older_question_is_dropped(bench: Bench) -> None:
    await bench.look()
    bench.now += 3600
    bench.look_once()
    await bench.inquiries.step(bench.asked.pop())
    bench.resource = tuned(quality={"targetPercent": 90})
    assert bench.look_once().record.history[0].reason == "Reset"
    bench.revision = 1
    assert bench.look_once().condition.reason != "Tuned"


async def test_a_slow_prometheus_keeps_only_its_own_namespace_waiting() -> None:
    """However many caches name it: a reconcile waits for none of them, and other namespaces have places left."""
    prometheus, released, waiting = FakePrometheus(), asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        waiting.set()
        await released.wait()
        return await prometheus.answer(request)

    async with serving(slow) as slow_url, serving(prometheus.answer) as url:
        news: list[Key] = []
        client = Prometheus(Access(), lambda: T0, seconds=30)
        inquiries = Inquiries(client, lambda key: None, news.append, lambda: T0 + 3600)
        since = time_text(T0)
        keys = [Key("slow", f"cache-{number}") for number in range(3 * PLACES)]
        for key in keys:
            inquiries.ask(key, Question(Source(slow_url, "slow"), ("a-0",), 0, since, since))
        steps = [asyncio.create_task(inquiries.step(key)) for key in keys]
        await waiting.wait()
        other = Key("other", "emoji")
        inquiries.ask(other, Question(Source(url, "other"), ("emoji-0",), 0, since, since))
        await inquiries.step(other)
        assert news == [other]
        for step in steps:
            step.cancel()
        released.set()
        await asyncio.gather(*steps, return_exceptions=True)
        await client.close()


async def test_no_window_before_every_ready_pod_follows(bench: Bench) -> None:
    bench.pods = 0
    assert (await bench.look()).condition.reason == "NoPod"
    bench.pods, bench.levels = 2, frozenset()
    assert (await bench.look()).condition.reason == "WaitingForPods"
    bench.levels = frozenset({LEVELS, (Level(20, 0.8),)})
    assert (await bench.look()).record.window_start == ""
    bench.levels = frozenset({LEVELS})
    assert (await bench.look()).record.window_start


async def test_a_pod_that_is_silent_is_not_one_that_follows(bench: Bench) -> None:
    figures = Figures(tuning_revisions=(0,), levels=bench.levels)
    seen = Observed({}, as_pods(ready_pod(0, "10.0.0.1"), ready_pod(1, "10.0.0.2")), figures=figures)
    for one in (seen, replace(seen, figures=None)):
        found = bench.tuner.look(bench.resource, bench.status, one)
        assert found is not None
        assert (found.condition.reason, found.record.window_start) == ("WaitingForPods", "")


async def test_a_clock_that_was_set_back_begins_the_window_again(bench: Bench) -> None:
    await bench.look()
    await bench.look(after=30)
    jumped = await bench.look(after=-7200)
    assert (jumped.condition.status, jumped.condition.reason, jumped.moved) == ("False", "ClockJump", False)
    record = (await bench.look(after=1)).record
    assert record.window_start == record.measured_since == time_text(bench.now)


async def test_off_is_off(bench: Bench) -> None:
    assert bench.tuner.look(cache(), DiffusionCacheStatus(), Observed({})) is None


LEVEL = LevelStatus(skip_percent=25, similarity="0.8")


@pytest.mark.parametrize(
    "broken",
    [
        {"capacity": "banana"},
        {"capacity": "9" * 40},
        {"capacity": "0"},
        {"levels": [LevelStatus(skip_percent=25, similarity="banana")]},
        {"levels": [LevelStatus(skip_percent=25, similarity="nan")]},
        {"levels": [LevelStatus(skip_percent=500, similarity="0.8")]},
        {"levels": [LEVEL, LEVEL]},
        {"levels": [LEVEL, LevelStatus(skip_percent=30, similarity="0.1")]},
        {"revision": -5},
        {"revision": 10**18},
    ],
)
async def test_a_record_that_no_tuner_wrote_is_set_back_to_the_spec(bench: Bench, broken: dict[str, Any]) -> None:
    first = (await bench.look()).record
    bench.status = bench.status.model_copy(update={"tuning": first.model_copy(update=broken)})
    told = await bench.look()
    assert told.moved
    assert (told.record.capacity, told.record.levels, told.record.based_on) == ("", [], first.based_on)
    assert (told.record.revision, told.record.history[0].reason) == (1, "Reset")
    assert "edited by hand" in told.record.decision


async def test_comparisons_that_count_from_the_future_on_begin_again(bench: Bench) -> None:
    record = (await bench.look()).record
    bench.status = bench.status.model_copy(
        update={"tuning": record.model_copy(update={"measured_since": "9999-12-31T23:59:59Z"})}
    )
    assert (await bench.look()).condition.reason == "ClockJump"
    assert (await bench.look()).record.measured_since == time_text(T0)
