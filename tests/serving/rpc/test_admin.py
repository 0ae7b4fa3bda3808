"""Admin calls, health, metrics, logs and files of a server, over the wire."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from diffcache_core.pb import diffcache_pb2 as pb
from tests.serving.cache.entries import KEY, entry
from tests.serving.rpc.wire import APPLE, LIKE_APPLE, Wire


async def test_a_list_fits_into_what_a_client_takes_by_default(wire: Wire) -> None:
    longest = "\N{EURO SIGN}" * 4096
    ledger = wire.server.generator.cache._ledger
    for number in range(400):  # 4.9 MB
        await ledger.insert(entry(f"e{number}", prompt=longest, created=float(number)), KEY)
    answer = await wire.admin.ListEntries(pb.ListEntriesRequest(limit=1000))
    assert 200 < len(answer.entries) < 400
    assert answer.entries[0].id == "e399"
    assert answer.total == 400
    assert len((await wire.admin.ListEntries(pb.ListEntriesRequest(entry_id="e0"))).entries) == 1


async def test_entries_are_listed_shown_and_purged(wire: Wire) -> None:
    first = await wire.generate(seed=3, steps=4)
    await wire.generate("pizza, flat style", tenant="acme")
    listed = await wire.admin.ListEntries(pb.ListEntriesRequest())
    assert [(e.prompt, e.tenant) for e in listed.entries] == [("pizza, flat style", "acme"), (APPLE, "default")]
    (shown,) = (await wire.admin.ListEntries(pb.ListEntriesRequest(entry_id=first.entry_id))).entries
    assert (shown.seed, shown.steps, shown.depth, [s.kind for s in shown.states]) == (3, 4, 0, ["Clean"])
    assert (await wire.admin.Purge(pb.PurgeRequest(tenant="acme"))).entries == 1
    assert (await wire.admin.Purge(pb.PurgeRequest(model="emoji"))).entries == 1
    assert (await wire.generate(seed=3, steps=4)).result == pb.RESULT_MISS


async def test_stats_and_metrics_agree(wire: Wire) -> None:
    before = await wire.admin.GetStats(pb.GetStatsRequest())
    await wire.generate(seed=1, steps=4)
    await wire.generate(LIKE_APPLE, steps=4)
    await wire.generate(seed=1, steps=4)
    await wire.refused(steps=0)
    after = await wire.admin.GetStats(pb.GetStatsRequest())
    changes = {
        n: getattr(after, n) - getattr(before, n)
        for n in ("requests", "miss", "approximate", "exact", "errors", "steps_run", "steps_skipped")
    }
    assert changes == {
        "requests": 4,
        "miss": 1,
        "approximate": 1,
        "exact": 1,
        "errors": 1,
        "steps_run": 6,
        "steps_skipped": 6,
    }
    assert (after.model, after.levels_source, after.capacity_bytes) == ("emoji", "manifest", 2**20)
    request = urllib.request.Request(wire.metrics_url, headers={"Accept": "application/openmetrics-text"})
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(request).read().decode())
    samples = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(page)
        for s in family.samples
    }
    assert samples["diffcache_requests_total", "emoji", "exact"] == after.exact
    assert samples["diffcache_steps_skipped_total",] == after.steps_skipped
    assert samples["diffcache_steps_total",] == after.steps_skipped + after.steps_run
    assert samples["diffcache_entries",] == after.entries == 2
    assert samples["diffcache_pending_steps",] == 0


async def test_health_by_service(wire: Wire) -> None:
    for service in ("", "diffcache.v1.ImageGeneration", "diffcache.v1.CacheAdmin"):
        answer = await wire.health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.health.Check(health_pb2.HealthCheckRequest(service="unknown"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_log_has_the_request_id_and_no_prompt(wire: Wire) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await wire.generate("pizza, noto style", request_id="find-me", steps=4)
    (line,) = [entry for entry in lines if entry.get("request_id") == "find-me"]
    assert (line["event"], line["result"], line["steps"]) == ("answered", "MISS", 4)
    assert "pizza" not in str(lines)


async def test_states_reach_milvus_and_are_found_there(wire: Wire) -> None:
    """Beyond the layer in memory: written behind, and still found."""
    await wire.generate(seed=1, steps=4)
    index: Any = wire.server.generator.cache._index
    await wire.server.generator.cache.settle()
    await index.flush()
    assert len(index._fresh) == 0
    assert (await wire.generate(LIKE_APPLE, steps=4)).result == pb.RESULT_APPROXIMATE


async def test_the_server_leaves_a_folder_that_others_can_read(wire: Wire) -> None:
    await wire.generate(seed=1)
    await wire.server.generator.cache.settle()
    folder: Path = wire.server.reloader.config.data_dir
    assert (folder / "ledger.db").is_file()
    assert list((folder / "states").rglob("*.safetensors"))
