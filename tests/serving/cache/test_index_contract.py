"""One contract, every index: in memory, Milvus Lite, the real Milvus server, and the layered one before each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from diffcache_serving.cache.index import Index, IndexRow, IndexUnavailable, LayeredIndex, MemoryIndex, Neighbour
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.milvus_lite import MilvusLite

DIM = 32
TOLERANCE = 1e-5  # of a cosine in float32
SPACE, OTHER = "a" * 64, "b" * 64

T = TypeVar("T")


@dataclass(frozen=True)
class Backing:
    """A Milvus that can be taken down, and that `uri` starts again on the same folder."""

    uri: Callable[[], str]
    stop: Callable[[], None]
    flushes: bool  # what a server is told for it


class RealMilvus:
    """The Milvus server of the package `milvus`, on free ports."""

    def __init__(self, folder: Path) -> None:
        from milvus import MilvusServer

        self._server: Any = MilvusServer()
        self._server.set_base_dir(str(folder))
        ports = [name for name in self._server.config_keys if name.endswith("_port")]
        with contextlib.ExitStack() as held:  # all at once, so that no two are equal
            for name in ports:
                taken = held.enter_context(socket.socket())
                taken.bind(("127.0.0.1", 0))
                self._server.config.set(name, taken.getsockname()[1])

    def uri(self) -> str:
        if not self._server.running:
            self._server.start()
        return f"http://127.0.0.1:{self._server.listen_port}"

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backing]:
    child = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    yield Backing(child.uri, child.stop, flushes=True)
    child.stop()


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backing]:
    server = RealMilvus(tmp_path_factory.mktemp("milvus"))
    yield Backing(server.uri, server.stop, flushes=False)
    server.stop()


def backing_index(backing: Backing, collection: str = "") -> MilvusIndex:
    name = collection or f"contract_{uuid.uuid4().hex}"
    return MilvusIndex(backing.uri, name, DIM, flushes=backing.flushes)


def layered(backing: Index, errors: list[tuple[str, Exception]] | None = None, flush_rows: int = 64) -> LayeredIndex:
    told: list[tuple[str, Exception]] = [] if errors is None else errors
    return LayeredIndex(backing, lambda operation, error: told.append((operation, error)), flush_rows)


BACKINGS = ["lite", pytest.param("milvus", marks=[pytest.mark.milvus, pytest.mark.timeout(300)])]
KINDS = [
    "memory",
    "lite",
    "layered-lite",
    pytest.param("milvus", marks=[pytest.mark.milvus, pytest.mark.timeout(300)]),
    pytest.param("layered-milvus", marks=[pytest.mark.milvus, pytest.mark.timeout(300)]),
]


@pytest.fixture(params=KINDS)
async def index(request: pytest.FixtureRequest) -> AsyncIterator[Index]:
    """An empty one."""
    kind, _, backing = request.param.rpartition("-")
    made: Index = MemoryIndex() if backing == "memory" else backing_index(request.getfixturevalue(backing))
    if kind == "layered":
        made = layered(made)
    yield made
    await made.close()


@pytest.fixture(params=BACKINGS)
def backing(request: pytest.FixtureRequest) -> Backing:
    value: Backing = request.getfixturevalue(request.param)
    return value


def unit_rows(count: int, space: str = SPACE, seed: int = 0) -> list[IndexRow]:
    keys = np.random.default_rng(seed).normal(size=(count, DIM))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return [IndexRow(f"{space[0]}{seed}-{i}", space, key.astype(np.float32)) for i, key in enumerate(keys)]


def oracle(rows: Sequence[IndexRow], key: np.ndarray, limit: int) -> list[tuple[str, float]]:
    """Cosines in float64, most similar first."""
    query = key.astype(np.float64)
    cosines = {
        row.entry_id: float(row.key @ query / np.linalg.norm(row.key.astype(np.float64)) / np.linalg.norm(query))
        for row in rows
    }
    return sorted(cosines.items(), key=lambda pair: -pair[1])[:limit]


def assert_same(found: list[Neighbour], expected: list[tuple[str, float]]) -> None:
    assert [n.entry_id for n in found] == [entry_id for entry_id, _ in expected]
    assert [n.similarity for n in found] == pytest.approx([cosine for _, cosine in expected], abs=TOLERANCE)


async def eventually(index: Index, read: Callable[[], Awaitable[Collection[object]]], expected: object) -> None:
    """A bare Milvus shows a deletion after a moment; every other index at once."""
    for _ in range(200):
        if not isinstance(index, MilvusIndex) or await read() == expected:
            break
        await asyncio.sleep(0.05)
    assert await read() == expected


RESTART_SECONDS = 180.0
"""A real Milvus that was restarted loads its rows for half a minute, and refuses flushes until the session of the data
node it was before has run out."""


async def answered(read: Callable[[], Awaitable[T]]) -> T:
    """What `read` returns once the index is up."""
    deadline = asyncio.get_running_loop().time() + RESTART_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        try:
            return await read()
        except IndexUnavailable:
            await asyncio.sleep(0.05)
    return await read()


class TestContract:
    async def test_empty(self, index: Index) -> None:
        assert await index.search(SPACE, unit_rows(1)[0].key, 16) == []
        assert await index.entry_ids() == set()
        await index.insert([])
        await index.delete([])
        await index.delete(["nobody"])

    async def test_nearest_first_with_their_cosines(self, index: Index) -> None:
        rows = unit_rows(200)
        await index.insert(rows)
        for query in [*unit_rows(5, seed=1), rows[17]]:
            assert_same(await index.search(SPACE, query.key, 16), oracle(rows, query.key, 16))

    async def test_opposite_keys_have_negative_similarity(self, index: Index) -> None:
        (row,) = unit_rows(1)
        await index.insert([row])
        assert_same(await index.search(SPACE, -row.key, 16), [(row.entry_id, -1.0)])

    @pytest.mark.parametrize("limit", [1, 7, 64])
    async def test_limit(self, index: Index, limit: int) -> None:
        rows = unit_rows(20)
        await index.insert(rows)
        assert_same(await index.search(SPACE, rows[3].key, limit), oracle(rows, rows[3].key, limit))

    async def test_spaces_never_mix(self, index: Index) -> None:
        ours, theirs = unit_rows(10, SPACE), unit_rows(10, OTHER)  # the same keys
        await index.insert([*ours, *theirs])
        for space, rows in ((SPACE, ours), (OTHER, theirs)):
            assert_same(await index.search(space, rows[0].key, 64), oracle(rows, rows[0].key, 64))
        assert await index.search("c" * 64, ours[0].key, 64) == []

    async def test_inserting_again_replaces(self, index: Index) -> None:
        old, new = unit_rows(2)
        await index.insert([old])
        await index.insert([IndexRow(old.entry_id, OTHER, new.key)])
        await eventually(index, lambda: index.search(SPACE, old.key, 16), [])
        assert_same(await index.search(OTHER, new.key, 16), [(old.entry_id, 1.0)])
        assert await index.entry_ids() == {old.entry_id}

    async def test_deleted_rows_are_gone(self, index: Index) -> None:
        rows = unit_rows(10)
        await index.insert(rows)
        await index.delete(row.entry_id for row in rows[:4])
        left = {row.entry_id for row in rows[4:]}

        async def found() -> set[str]:
            return {n.entry_id for n in await index.search(SPACE, rows[0].key, 16)}

        await eventually(index, found, left)
        assert await index.entry_ids() == left
        await index.delete(left)
        await eventually(index, found, set())
        assert await index.entry_ids() == set()

    async def test_a_deleted_row_can_come_back(self, index: Index) -> None:
        (row,) = unit_rows(1)
        await index.insert([row])
        await index.delete([row.entry_id])
        await index.insert([row])
        assert_same(await index.search(SPACE, row.key, 16), [(row.entry_id, 1.0)])
        assert await index.entry_ids() == {row.entry_id}

    async def test_listing_has_more_than_one_page(self, index: Index) -> None:
        rows = unit_rows(2500)
        await index.insert(rows)
        assert await index.entry_ids() == {row.entry_id for row in rows}


class TestLayered:
    async def test_one_reads_ones_own_writes(self, backing: Backing) -> None:
        """Half of the rows lie in Milvus, half in memory; every one of them is found as soon as it is inserted."""
        index, rows = layered(backing_index(backing), flush_rows=1000), unit_rows(40)
        for i, row in enumerate(rows):
            await index.insert([row])
            if i == 20:
                await index.flush()
            assert_same(await index.search(SPACE, row.key, 16), oracle(rows[: i + 1], row.key, 16))
        await index.delete([rows[0].entry_id, rows[39].entry_id])  # one from each layer
        for row in (rows[0], rows[39]):
            assert_same(await index.search(SPACE, row.key, 16), oracle(rows[1:39], row.key, 16))
        await index.close()

    async def test_a_row_that_is_replaced_has_its_new_key_in_both_layers(self, backing: Backing) -> None:
        index, (old, new, query) = layered(backing_index(backing)), unit_rows(3)
        await index.insert([old])
        await index.flush()
        await index.insert([IndexRow(old.entry_id, SPACE, new.key)])
        expected = oracle([IndexRow(old.entry_id, SPACE, new.key)], query.key, 16)
        assert_same(await index.search(SPACE, query.key, 16), expected)
        await index.flush()
        assert_same(await index.search(SPACE, query.key, 16), expected)
        await index.close()

    async def test_a_full_layer_moves_to_milvus_by_itself(self, backing: Backing) -> None:
        name = f"contract_{uuid.uuid4().hex}"
        index, other, rows = layered(backing_index(backing, name)), backing_index(backing, name), unit_rows(64)
        assert await other.entry_ids() == set()
        for row in rows:
            await index.insert([row])
        expected = {row.entry_id for row in rows}
        for _ in range(600):
            if await other.entry_ids() == expected:
                break
            await asyncio.sleep(0.05)
        assert await other.entry_ids() == expected
        await index.close()
        await other.close()

    @pytest.mark.timeout(600)
    async def test_rows_survive_a_restart_of_milvus(self, backing: Backing) -> None:
        name, rows = f"contract_{uuid.uuid4().hex}", unit_rows(30)
        index = layered(backing_index(backing, name))
        await index.insert(rows)
        await index.close()
        await asyncio.to_thread(backing.stop)
        index = layered(backing_index(backing, name))
        assert await answered(index.entry_ids) == {row.entry_id for row in rows}
        assert_same(await index.search(SPACE, rows[5].key, 16), oracle(rows, rows[5].key, 16))
        await index.close()

    @pytest.mark.timeout(600)
    async def test_an_index_in_use_survives_a_restart_of_milvus(self, backing: Backing) -> None:
        index, rows = layered(backing_index(backing)), unit_rows(30)
        await index.insert(rows[:20])
        await index.flush()
        await asyncio.to_thread(backing.stop)
        await index.insert(rows[20:])  # into memory: Milvus is down
        expected = oracle(rows, rows[5].key, 16)

        async def all_found() -> list[Neighbour]:
            """A real Milvus first reads again what it had not flushed."""
            found = await index.search(SPACE, rows[5].key, 16)
            if len(found) < len(expected) or {n.entry_id for n in found} != {i for i, _ in expected}:
                raise IndexUnavailable("not all rows show yet")
            return found

        assert_same(await answered(all_found), expected)
        await answered(index.flush)
        assert_same(await index.search(SPACE, rows[5].key, 16), oracle(rows, rows[5].key, 16))
        await index.close()


class TestDown:
    """A Milvus that is not there: every method says so in one way."""

    @pytest.fixture
    async def down(self) -> AsyncIterator[MilvusIndex]:
        with socket.socket() as taken:  # bound, and nobody listens: connections are refused
            taken.bind(("127.0.0.1", 0))
            uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
            index = MilvusIndex(lambda: uri, "contract_f00d_32", DIM, siblings="contract_")
            yield index
            await index.close()

    @pytest.mark.parametrize(
        "call",
        [
            lambda index: index.search(SPACE, unit_rows(1)[0].key, 16),
            lambda index: index.insert(unit_rows(1)),
            lambda index: index.delete(["x"]),
            lambda index: index.entry_ids(),
            lambda index: index.ping(),
            lambda index: index.forget_models(set()),
        ],
        ids=["search", "insert", "delete", "entry_ids", "ping", "forget_models"],
    )
    async def test_every_method_says_unavailable(
        self, down: MilvusIndex, call: Callable[[MilvusIndex], Awaitable[object]]
    ) -> None:
        with pytest.raises(IndexUnavailable):
            await call(down)
        assert down.outages == 1

    async def test_the_layered_one_serves_from_memory_and_reports(self, down: MilvusIndex) -> None:
        errors: list[tuple[str, Exception]] = []
        index, rows = layered(down, errors), unit_rows(5)
        await index.insert(rows)
        assert_same(await index.search(SPACE, rows[0].key, 16), oracle(rows, rows[0].key, 16))
        with pytest.raises(IndexUnavailable):
            await index.flush()
        assert_same(await index.search(SPACE, rows[0].key, 16), oracle(rows, rows[0].key, 16))
        await index.close()
        assert [operation for operation, _ in errors] == ["insert"]
