"""What a large purge or a long list meets: Milvus', SQLite's and gRPC's limits, and the others' look-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_serving.cache.index import LayeredIndex
from diffcache_serving.cache.ledger import Target, Totals
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.pieces import PIECE, pieces
from tests.serving.cache.entries import KEY, entry
from tests.serving.cache.milvus_gateway import MAX_ROWS, MilvusGateway
from tests.serving.cache.test_index_contract import DIM, SPACE, assert_same, oracle, unit_rows


def test_pieces_are_all_of_it_in_order() -> None:
    assert list(pieces(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(pieces([])) == []


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    child = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    yield child
    child.stop()


async def test_a_purge_of_more_rows_than_milvus_answers_leaves_look_ups_alone(lite: MilvusLite) -> None:
    target = (await asyncio.to_thread(lite.uri)).removeprefix("http://")
    with MilvusGateway(target) as gateway:
        index = LayeredIndex(MilvusIndex(lambda: gateway.uri, "limits", DIM), lambda what, error: None, shared=True)
        rows = unit_rows(40)
        await index.insert(rows)
        await index.flush()
        gone, left = rows[:20], rows[20:]
        gateway.deletions_pass.clear()
        await index.delete([row.entry_id for row in gone] + [f"of-another-pod-{i}" for i in range(MAX_ROWS)])
        for row in rows[::4]:  # while the deletions are still to come
            assert_same(await index.search(SPACE, row.key, 16), oracle(left, row.key, 16))
        gateway.deletions_pass.set()
        await index.flush()
        assert await index.entry_ids() == {row.entry_id for row in left}
        assert sum(gateway.deleted_at_once) >= MAX_ROWS + 20
        assert max(gateway.deleted_at_once) <= PIECE
        await index.close()


async def test_look_ups_come_between_the_pieces_of_a_purge() -> None:
    ledger = await SqliteLedger.open(None, LCBFU())
    for number in range(PIECE + 1):
        await ledger.insert(entry(f"e{number}"), KEY)
    purge = asyncio.create_task(ledger.drop_entries(Target()))
    await asyncio.sleep(0)  # it has asked for its first piece
    assert await ledger.totals() == Totals(1, 1, 4096)
    assert not purge.done()
    assert len((await purge).entries) == PIECE + 1
    assert await ledger.totals() == Totals()
    await ledger.close()


async def test_an_eviction_of_many_is_whole() -> None:
    ledger = await SqliteLedger.open(None, LCBFU())
    for number in range(2 * PIECE + 3):
        await ledger.insert(entry(f"e{number}"), KEY)
    dropped = await ledger.reserve(0, 0, Budget(4096, 10))
    assert len(dropped.entries) == 2 * PIECE + 2
    assert (await ledger.totals()).entries == 1
    await ledger.close()


async def test_a_ledger_reads_more_entries_than_sqlite_takes_values() -> None:
    ledger = await SqliteLedger.open(None, LCBFU())
    await ledger.insert(entry("e"), KEY)
    found = await ledger.entries([*(f"nobody-{i}" for i in range(300_000)), "e"])
    assert set(found) == {"e"}
    await ledger.close()
