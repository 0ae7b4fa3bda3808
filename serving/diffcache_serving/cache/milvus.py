"""The index in Milvus: Lite, standalone or a cluster, through the same client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from diffcache_core.net.proxies import NO_PROXY_OPTION, host_of
from diffcache_serving.cache.index import IndexRow, IndexUnavailable, Neighbour
from diffcache_serving.cache.milvus_connections import MilvusConnections
from diffcache_serving.cache.pieces import pieces
from diffcache_serving.local_hosts import is_local

CALL_SECONDS = 10.0
"""Of one write; look-ups have their own, much shorter deadline around the search."""

MODEL_DIGITS = 12  # of a model's fingerprint, in the name of its collection

PAGE_ROWS = 1000  # of a listing; Milvus caps a query's answer at 16,384 rows

CHANNEL_OPTIONS = {"grpc.keepalive_time_ms": 300_000, "grpc.keepalive_permit_without_calls": False}
"""pymilvus pings every 10 s, a plain gRPC server such as Milvus Lite's takes that for an attack and hangs up
(too_many_pings). 300 s is what it allows; a dead peer is found by each call's own deadline."""

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """Where and how to get in. The files are read anew for each connection, so that a rotated secret works."""

    token_file: Path | None = None  # user:password or an API key
    ca_file: Path | None = None  # PEM; for https:// only
    database: str = ""  # empty: Milvus' default

    def options(self) -> dict[str, Any]:
        """MilvusClient's. Raises OSError."""
        options: dict[str, Any] = {"db_name": self.database}
        if self.token_file is not None:
            options["token"] = self.token_file.read_text(encoding="utf-8").strip()
        if self.ca_file is not None:  # its `ca_pem_path` counts only beside a client's certificate
            options["server_pem_path"] = str(self.ca_file)
        return options


def collection_prefix(cache: str, ledger: str) -> str:
    """How the names of a cache's collections begin. The ledger's id tells caches of one name apart."""
    return f"diffcache_{cache.replace('-', '_')}_{ledger[:12]}_"


def collection_name(prefix: str, model: str, dim: int) -> str:
    """The name holds what the rows depend on, so nobody else's rows or dimensions get in. `model` is a fingerprint."""
    return f"{prefix}{model[:MODEL_DIGITS]}_{dim}"


class MilvusIndex:
    """One collection: entry id, space digest, key. All calls run in threads, for pymilvus blocks."""

    def __init__(
        self,
        uri: Callable[[], str],
        collection: str | Callable[[], str],
        dim: int,
        call_seconds: float = CALL_SECONDS,
        access: Access = Access(),
        siblings: str | Callable[[], str] = "",
        flushes: bool = True,
        on_outcome: Callable[[bool], None] = lambda succeeded: None,
    ) -> None:
        """`uri()` is asked, in a thread, for each new connection: a Milvus Lite that died comes back elsewhere.

        `collection` may become known, or become another, later. `siblings`: how the names of this cache's collections
        begin, before the model's fingerprint; empty: there are none. `flushes`: after each write, which Milvus Lite
        needs for speed; a real Milvus shows and keeps rows without, and refuses more than one in ten seconds (after a
        restart of it they show once it has read its log again).
        `on_outcome(succeeded)` is called after every operation, in a thread.
        """
        self._uri, self._name, self._dim, self._seconds = uri, _later(collection), dim, call_seconds
        self._access, self._siblings, self._flushes, self._on_outcome = access, _later(siblings), flushes, on_outcome
        self._collection = ""  # that calls are for now
        self.outages = 0
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        self._connections = MilvusConnections(self._connect)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="milvus")  # a write must not hold up a search

    async def search(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        def call(client: MilvusClient) -> list[Neighbour]:
            hits = client.search(
                self._collection,
                data=[key.astype(np.float32)],
                limit=limit,
                filter=f'space == "{space}"',
                search_params={"metric_type": "COSINE"},
                timeout=self._seconds,
                consistency_level="Eventually",
            )[0]
            return [Neighbour(str(hit.id), float(hit.distance)) for hit in hits]

        return await self._call(call)

    async def insert(self, rows: Sequence[IndexRow]) -> None:
        for piece in pieces(rows):
            await self._insert(piece)

    async def _insert(self, rows: Sequence[IndexRow]) -> None:
        def call(client: MilvusClient) -> None:
            ids = [row.entry_id for row in rows]
            client.delete(self._collection, ids=ids, timeout=self._seconds)  # a real Milvus keeps both of two equal ids
            client.insert(
                self._collection,
                timeout=self._seconds,
                data=[
                    {"entry_id": row.entry_id, "space": row.space, "key": row.key.astype(np.float32)} for row in rows
                ],
            )
            if self._flushes:
                client.flush(self._collection, timeout=self._seconds)
            _await_shown(client, self._collection, ids, self._seconds)

        await self._call(call)

    async def delete(self, entry_ids: Iterable[str]) -> None:
        for ids in pieces(entry_ids):
            await self._delete(ids)

    async def _delete(self, ids: list[str]) -> None:
        await self._call(lambda client: client.delete(self._collection, ids=ids, timeout=self._seconds))

    async def entry_ids(self) -> set[str]:
        def call(client: MilvusClient) -> set[str]:
            pages = client.query_iterator(
                self._collection,
                batch_size=PAGE_ROWS,
                filter='entry_id != ""',
                output_fields=["entry_id"],
                timeout=self._seconds,
                consistency_level="Strong",
            )
            try:
                found: set[str] = set()
                while page := pages.next():
                    found |= {row["entry_id"] for row in page}
                return found
            finally:
                pages.close()

        return await self._call(call)

    async def ping(self) -> None:
        def call(client: MilvusClient) -> None:
            if not client.has_collection(self._collection, timeout=self._seconds):
                raise LookupError(f"the collection {self._collection} is gone")  # a new connection makes it again

        await self._call(call)

    async def forget_models(self, kept: set[str]) -> None:
        def call(client: MilvusClient) -> None:
            siblings = self._siblings()
            beginnings = tuple(siblings + model[:MODEL_DIGITS] for model in kept)
            for name in client.list_collections(timeout=self._seconds) if siblings else ():
                is_sibling = name.startswith(siblings) and name != self._collection
                if is_sibling and not name.startswith(beginnings):
                    client.drop_collection(name, timeout=self._seconds)

        await self._call(call)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._connections.close)

    async def _call(self, call: Callable[[MilvusClient], T]) -> T:
        def work() -> T:
            try:
                self._collection = self._name()
                with self._connections.use(self._collection) as client:
                    answer = call(client)
            except Exception as error:  # pymilvus raises grpc, ValueError and its own for one and the same outage
                self.outages += 1
                self._on_outcome(False)
                raise IndexUnavailable(f"{type(error).__name__}: {error}"[:300]) from error
            self._on_outcome(True)
            return answer

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _connect(self, collection: str) -> MilvusClient:
        uri = self._uri()
        straight = is_local(host_of(uri))
        client = MilvusClient(
            uri,
            timeout=self._seconds,
            grpc_options=CHANNEL_OPTIONS | (dict([NO_PROXY_OPTION]) if straight else {}),
            dedicated=True,
            **self._access.options(),
        )
        try:
            self._prepare(client, collection)
        except BaseException:
            client.close()
            raise
        return client

    def _prepare(self, client: MilvusClient, collection: str) -> None:
        """The collection is there, and loaded."""
        if not client.has_collection(collection, timeout=self._seconds):
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("entry_id", DataType.VARCHAR, is_primary=True, max_length=64)
            schema.add_field("space", DataType.VARCHAR, max_length=64)
            schema.add_field("key", DataType.FLOAT_VECTOR, dim=self._dim)
            indexes: Any = client.prepare_index_params()
            indexes.add_index("key", index_type="AUTOINDEX", metric_type="COSINE")
            try:
                client.create_collection(collection, schema=schema, index_params=indexes, timeout=60)
            except MilvusException:
                if not client.has_collection(collection, timeout=self._seconds):
                    raise  # else another replica was faster
        client.load_collection(collection, timeout=60)


def _later(name: str | Callable[[], str]) -> Callable[[], str]:
    return (lambda: name) if isinstance(name, str) else name


def _await_shown(client: MilvusClient, collection: str, ids: list[str], seconds: float) -> None:
    """Returns when a search would see `ids`: only then may the layer before the index forget them."""
    deadline = time.monotonic() + seconds
    while True:
        shown: list[Any] = client.get(
            collection, ids=ids, output_fields=["entry_id"], timeout=seconds, consistency_level="Strong"
        )
        if len({row["entry_id"] for row in shown}) == len(set(ids)):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(ids)} inserted rows do not show")
        time.sleep(0.05)
