"""A connection to Redis or Valkey with short timeouts. It never repeats a command, and reads its secrets again for each
new connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from diffcache_core.foreign import without_credentials
from diffcache_serving.values.errors import LedgerError

CONNECT_SECONDS = 1.0
COMMAND_SECONDS = 2.0
"""Timeout of a command. It matters for background writes, because look-ups have their own, much shorter deadline. A
higher value loses fewer entries of a burst when Redis is slow, but delays the keeper as long when Redis hangs."""


@dataclass(frozen=True)
class RedisAccess:
    """The address and credentials of a Redis. The files are read for each new connection, so that a rotated secret
    works."""

    address: str  # redis://HOST:PORT/DATABASE, or rediss:// for TLS
    password_file: Path | None = None
    ca_file: Path | None = None  # PEM; for rediss:// only


def connect(access: RedisAccess) -> Redis:
    """Returns a client that connects at its first use. Raises ValueError if the address is invalid."""
    options: dict[str, Any] = {**parse_url(access.address)}
    if options.get("connection_class") is SSLConnection:
        options["connection_class"] = _FreshTls
        if access.ca_file is not None:
            options["ssl_ca_certs"] = str(access.ca_file)
    if access.password_file is not None:
        options.pop("password", None)
        options["credential_provider"] = _PasswordFile(access.password_file, options.pop("username", None))
    pool = ConnectionPool(
        **options,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=COMMAND_SECONDS,
        retry=Retry(NoBackoff(), 0),  # no retry, because a lost answer may be that of an insertion
        protocol=2,  # Valkey and every Redis support it
    )
    return Redis.from_pool(pool)  # closes the pool together with the client; the constructor would not


def cluster_refusal(address: str) -> LedgerError:
    return LedgerError(
        f"{without_credentials(address)} is a Redis Cluster, whose nodes hold a part of the keys each: give the "
        "address of a single Redis or Valkey, with replicas if you like, and with cluster-enabled no"
    )


class _FreshTls(SSLConnection):
    """Reads the CA file for each connection. redis-py itself would keep what it read first."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = None
        return super()._connection_arguments()


class _PasswordFile(CredentialProvider):
    def __init__(self, path: Path, username: str | None) -> None:
        self._path, self._username = path, username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(encoding="utf-8").strip()
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()  # does not block: a mounted secret is a few bytes in memory
