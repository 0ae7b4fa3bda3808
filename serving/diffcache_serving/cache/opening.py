"""Opens the ledger, store and index that a config asks for."""

from __future__ import annotations

from functools import partial

import structlog

from diffcache_core.cache.policies import LCBFU
from diffcache_core.choices import StoreType
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.cache.events import CacheEvents, Operation
from diffcache_serving.cache.index import Index, LayeredIndex, MemoryIndex
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.milvus import Access, MilvusIndex, collection_name, collection_prefix
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.redis_client import RedisAccess
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.cache.store import StateStore

log = structlog.get_logger("diffcache.ledger")


async def open_ledger(config: ServingConfig, events: CacheEvents) -> Ledger:
    """Opens the ledger. Raises LedgerError if it cannot be used.

    If a Redis does not answer, the process serves without it and tries again in the background.
    """
    if config.cache.is_shared:
        settings = config.cache.ledger
        access = RedisAccess(settings.address, settings.password_file, settings.ca_file)
        return await RedisLedger.open(access, settings.prefix or config.name, partial(events.part_answers, "ledger"))
    events.part_answers("ledger", True)
    return await SqliteLedger.open(config.data_dir / "ledger.db", LCBFU(), on_set_aside=lambda why: log.warning(why))


def open_store(config: ServingConfig, events: CacheEvents) -> StateStore:
    events.part_answers("store", True)  # nothing has failed yet
    if config.cache.store.type is StoreType.S3:
        return S3StateStore(config.cache.store, partial(events.part_answers, "store"))
    return StateStore(config.data_dir / "states")


def open_index(
    config: ServingConfig, model: str, dim: int, ledger: Ledger, lite: MilvusLite | None, events: CacheEvents
) -> Index:
    """Opens the index. `model` is a fingerprint, `dim` the length of its keys."""
    if config.index.type == "Memory":
        events.part_answers("index", True)
        return MemoryIndex()

    def prefix() -> str:
        if not ledger.id:
            raise LookupError("the ledger, whose id is in the names of the collections, has not answered yet")
        return collection_prefix(config.name, ledger.id)

    def on_error(operation: Operation, error: Exception) -> None:
        events.operation_failed(operation)
        log.warning("the index was not written", error=str(error))

    backing = MilvusIndex(
        lite.uri if lite else lambda: config.index.uri,
        lambda: collection_name(prefix(), model, dim),
        dim,
        access=Access(config.index.token_file, config.index.ca_file, config.index.database),
        siblings=prefix,
        flushes=lite is not None,
        on_outcome=partial(events.part_answers, "index"),
    )
    return LayeredIndex(backing, on_error, shared=config.cache.is_shared)
