"""Which ledger and which store a config asks for."""

from __future__ import annotations

import structlog

from diffcache_core.cache.policies import LCBFU
from diffcache_core.choices import StoreType
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.redis_client import RedisAccess
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.cache.store import StateStore
from diffcache_serving.metrics import Metrics

log = structlog.get_logger("diffcache.ledger")


async def open_ledger(config: ServingConfig, metrics: Metrics) -> Ledger:
    """Raises LedgerError for one that cannot be used; a Redis that is down is waited for behind the requests."""
    if config.cache.is_shared:
        settings = config.cache.ledger
        access = RedisAccess(settings.address, settings.password_file, settings.ca_file)
        return await RedisLedger.open(access, settings.prefix or config.name, metrics.ledger_up.set)
    metrics.ledger_up.set(1)
    return await SqliteLedger.open(config.data_dir / "ledger.db", LCBFU(), on_set_aside=lambda why: log.warning(why))


def open_store(config: ServingConfig, metrics: Metrics) -> StateStore:
    metrics.store_up.set(1)  # nothing has failed yet
    if config.cache.store.type is StoreType.S3:
        return S3StateStore(config.cache.store, metrics.store_up.set)
    return StateStore(config.data_dir / "states")
