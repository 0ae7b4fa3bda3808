"""Bytes that have to leave a bucket: of services without DeleteObjects, and of those that refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.deletions import Deletions
from diffcache_serving.cache.ledger import Target
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.cache.store import REFUSALS, NotDeleted
from diffcache_serving.metrics import Metrics
from tests.serving.cache.box import seeded, text
from tests.serving.cache.s3_front import S3Front, bulk_deletions, deletions, nothing
from tests.serving.cache.s3_server import S3Server

pytestmark = pytest.mark.shared


@pytest.fixture
def front(bucket: StoreConfig) -> Iterator[S3Front]:
    with S3Front(bucket.endpoint) as between:
        yield between


def through(front: S3Front, bucket: StoreConfig) -> S3StateStore:
    return S3StateStore(bucket.model_copy(update={"endpoint": front.endpoint}))


async def test_a_service_without_bulk_deletions_deletes(
    bucket: StoreConfig, front: S3Front, s3_server: S3Server
) -> None:
    front.refuses = bulk_deletions
    store = through(front, bucket)
    names = [f"ab{i}" for i in range(40)]
    for name in names:
        await store.put(name, b"one")
    await store.delete([*names[:30], "never-there"])
    assert set(await store.listed()) == set(names[30:])
    assert len(s3_server.files(bucket)) == 10


async def test_a_purge_there_leaves_no_bytes(
    boxes: Any, request_: GenerationRequest, bucket: StoreConfig, front: S3Front, s3_server: S3Server
) -> None:
    front.refuses = bulk_deletions
    box = await boxes(store=through(front, bucket))
    for i in range(5):
        await box.keep(seeded(request_, i), text(float(i)), float(i))
    assert (await box.cache.purge(Target())).states == 5
    assert s3_server.files(bucket) == []
    assert box.count("states_undeleted") == 0


async def test_what_is_refused_is_said_and_tried_until_it_is_gone(
    boxes: Any, request_: GenerationRequest, bucket: StoreConfig, front: S3Front, s3_server: S3Server
) -> None:
    box = await boxes(store=through(front, bucket))
    for i in range(5):
        await box.keep(seeded(request_, i), text(float(i)), float(i))
    front.refuses = deletions
    await box.cache.purge(Target())
    assert box.count("states_undeleted") == 5
    assert box.count("index_errors_total", op="delete") == 1
    await box.cache.check_store()
    assert (box.count("states_undeleted"), len(s3_server.files(bucket))) == (5, 5)
    front.refuses = nothing
    await box.cache.check_store()
    assert (box.count("states_undeleted"), s3_server.files(bucket)) == (0, [])


async def test_one_locked_object_does_not_hold_up_the_others(bucket: StoreConfig, front: S3Front) -> None:
    front.refuses = lambda method, path: 403 if method == "DELETE" and "ab7" in path else 0
    store = through(front, bucket)
    for i in range(20):
        await store.put(f"ab{i}", b"one")
    with pytest.raises(NotDeleted) as raised:
        await store.delete(f"ab{i}" for i in range(20))
    assert raised.value.state_ids == ["ab7"]
    assert set(await store.listed()) == {"ab7"}


async def test_a_bucket_that_refuses_everything_is_not_asked_for_everything(
    bucket: StoreConfig, front: S3Front
) -> None:
    front.refuses = deletions
    kept = Deletions(through(front, bucket), Metrics("emoji"))
    await kept.delete(f"ab{i}" for i in range(1000))
    first = {line for line in front.asked if line.startswith("DELETE")}
    assert len(first) < 2 * REFUSALS
    front.asked.clear()
    await kept.retry()
    assert not first & set(front.asked), "those that were not tried yet come first"
    front.refuses = nothing
    await kept.retry()
    front.asked.clear()
    await kept.retry()
    assert front.asked == [], "nothing is left to try"
