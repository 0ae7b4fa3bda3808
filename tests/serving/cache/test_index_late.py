"""An index that comes late, goes away, or loses its rows: the ledger fills it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from diffcache_core.generation import GenerationRequest
from diffcache_serving.cache.index import IndexRow, LayeredIndex
from diffcache_serving.cache.milvus import MilvusIndex, collection_name, collection_prefix
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.values.found import Miss, Resume
from tests.serving.cache.box import Box, seeded, text

NOBODY = "http://127.0.0.1:1"
PREFIX = collection_prefix("my-cache", "ab" * 16)
MINE = collection_name(PREFIX, "f00d" * 16, 2)
ROW = IndexRow("one", "s" * 64, np.array([1.0, 0.0], np.float32))


class Milvus:
    """A Milvus Lite that can be out of reach, and what was said about it."""

    def __init__(self, lite: MilvusLite) -> None:
        self.uri, self.outcomes = lite.uri(), list[bool]()
        self.reachable = True

    def index(self, model: str = "f00d" * 16) -> MilvusIndex:
        return MilvusIndex(
            lambda: self.uri if self.reachable else NOBODY,
            collection_name(PREFIX, model, 2),
            2,
            call_seconds=2.0,
            siblings=PREFIX,
            on_outcome=self.outcomes.append,
        )

    def layered(self) -> LayeredIndex:
        return LayeredIndex(self.index(), lambda operation, error: None)

    def collections(self) -> set[str]:
        client = MilvusClient(self.uri, dedicated=True)
        try:
            return set(client.list_collections())
        finally:
            client.close()

    def drop(self, name: str) -> None:
        client = MilvusClient(self.uri, dedicated=True)
        client.drop_collection(name)
        client.close()


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    child = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    yield child
    child.stop()


@pytest.fixture
async def milvus(lite: MilvusLite) -> AsyncIterator[Milvus]:
    running = Milvus(lite)
    yield running
    for name in running.collections():
        running.drop(name)


async def restarted(box: Box, boxes: Any, milvus: Milvus) -> Box:
    await box.close()
    again: Box = await boxes(index=milvus.layered())
    return again


async def test_an_index_that_comes_after_the_start_is_filled_then(
    boxes: Any, request_: GenerationRequest, milvus: Milvus
) -> None:
    box = await boxes()  # with an index in memory
    kept = await box.keep(request_, text(0), 1.0)
    milvus.reachable = False
    box = await restarted(box, boxes, milvus)
    assert box.repaired.entries == 1
    assert milvus.outcomes == [False]
    assert isinstance(await box.look_up(seeded(request_, 2), text(5)), Miss)
    await box.cache.check_index()
    assert not any(milvus.outcomes)

    milvus.reachable = True
    await box.cache.check_index()
    assert milvus.outcomes[-1]
    found = await box.look_up(seeded(request_, 3), text(5))
    assert isinstance(found, Resume)
    assert found.parent == kept
    await box.cache.check_index()  # only a ping now
    assert box.count("index_errors_total", op="repair") == 2


async def test_rows_that_the_index_lost_are_put_in_again(
    boxes: Any, request_: GenerationRequest, milvus: Milvus
) -> None:
    box = await boxes(index=milvus.layered())
    await box.keep(request_, text(0), 1.0)
    box = await restarted(box, boxes, milvus)  # so that its row is in Milvus, and not only in memory
    name = next(iter(milvus.collections()))
    milvus.drop(name)
    await box.cache.check_index()  # notices
    await box.cache.check_index()  # repairs
    assert isinstance(await box.look_up(seeded(request_, 2), text(5)), Resume)
    assert await box.index.entry_ids() != set()


async def test_only_this_caches_collections_of_forgotten_models_are_dropped(milvus: Milvus) -> None:
    other_cache = collection_name(collection_prefix("my-cache", "cd" * 16), "dead" * 16, 2)
    kept, gone = collection_name(PREFIX, "beef" * 16, 2), collection_name(PREFIX, "dead" * 16, 3)
    for name in (other_cache, kept, gone):
        index = MilvusIndex(lambda: milvus.uri, name, 2)
        await index.insert([ROW])
        await index.close()
    index = milvus.index()
    await index.insert([ROW])
    await index.forget_models({"beef" * 16})
    assert milvus.collections() == {MINE, kept, other_cache}
    assert await index.entry_ids() == {"one"}
    await index.close()
