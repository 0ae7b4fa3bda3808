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
"""Timeout of one call. It matters for writes, because look-ups have their own, much shorter deadline."""

MODEL_DIGITS = 12  # number of digits of the model's fingerprint in the name of its collection

PAGE_ROWS = 1000  # rows per page of a listing; Milvus limits the answer to a query to 16,384 rows

CHANNEL_OPTIONS = {"grpc.keepalive_time_ms": 300_000, "grpc.keepalive_permit_without_calls": False}
"""pymilvus pings every 10 s. A plain gRPC server, such as that of Milvus Lite, treats this as an attack and closes the
connection (too_many_pings); it allows one ping per 300 s. The deadline of each call detects a dead server."""

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """The credentials of a Milvus. The files are read for each new connection, so that a rotated secret works."""

    token_file: Path | None = None  # user:password or an API key
    ca_file: Path | None = None  # PEM; for https:// only
    database: str = ""  # empty: Milvus' default

    def options(self) -> dict[str, Any]:
        """Returns the options for MilvusClient. Raises OSError if a file cannot be read."""
        options: dict[str, Any] = {"db_name": self.database}
        if self.token_file is not None:
            options["token"] = self.token_file.read_text(encoding="utf-8").strip()
        if self.ca_file is not None:  # MilvusClient uses `ca_pem_path` only together with a client certificate
            options["server_pem_path"] = str(self.ca_file)
        return options


def collection_prefix(cache: str, ledger: str) -> str:
    """Returns the prefix of the names of a cache's collections. The ledger's id distinguishes caches of one name."""
    return f"diffcache_{cache.replace('-', '_')}_{ledger[:12]}_"


def collection_name(prefix: str, model: str, dim: int) -> str:
    """Returns the name of a collection. `model` is a fingerprint, `dim` the length of its keys.

    The name contains what the rows depend on, so that no other rows or dimensions get into the collection.
    """
    return f"{prefix}{model[:MODEL_DIGITS]}_{dim}"


class MilvusIndex:
    """One collection of rows (entry id, space digest, key). All calls run in threads, because pymilvus blocks."""

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
        """`uri()` is called in a thread for each new connection: a restarted Milvus Lite has another address.

        `collection` is the name, or a function that returns it, if the name becomes known later or may change.
        `siblings` is the prefix of the names of this cache's collections, before the model's fingerprint; empty means
        that there are no others. With `flushes` the collection is flushed after each write. Milvus Lite needs that for
        speed. A real Milvus shows and keeps rows without it (after a restart the rows show once it has read its log
        again), and refuses more than one flush in ten seconds. `on_outcome(succeeded)` is called after every operation,
        in a thread.
        """
        self._uri, self._name, self._dim, self._seconds = uri, _later(collection), dim, call_seconds
        self._access, self._siblings, self._flushes, self._on_outcome = access, _later(siblings), flushes, on_outcome
        self._collection = ""  # the collection that calls use now
        self.outages = 0
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        self._connections = MilvusConnections(self._connect)
        self._threads = ThreadPoolExecutor(
            2, thread_name_prefix="milvus"
        )  # two, so that a write does not delay a search

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
            client.delete(self._collection, ids=ids, timeout=self._seconds)  # a real Milvus keeps rows with equal ids
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
                raise LookupError(f"the collection {self._collection} is gone")  # a new connection creates it again

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
            except Exception as error:  # for one outage pymilvus raises grpc errors, ValueError or its own types
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
        """Creates the collection if it does not exist, and loads it."""
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
                    raise  # otherwise another replica has created it meanwhile
        client.load_collection(collection, timeout=60)


def _later(name: str | Callable[[], str]) -> Callable[[], str]:
    return (lambda: name) if isinstance(name, str) else name


def _await_shown(client: MilvusClient, collection: str, ids: list[str], seconds: float) -> None:
    """Waits until a search sees `ids`. Only then may LayeredIndex remove them from memory.

    Raises TimeoutError after `seconds`.
    """
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
