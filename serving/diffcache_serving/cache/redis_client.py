"""A connection to Redis or Valkey that gives up soon, never repeats a command, and reads its secrets anew each time."""

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
"""Of writes behind a request; look-ups have their own, much shorter deadline. A longer wait keeps more of a burst when
Redis is slow, and holds the keeper up as long when it hangs."""


@dataclass(frozen=True)
class RedisAccess:
    """Where it is and how to get in. The files are read anew for each connection, so that a rotated secret works."""

    address: str  # redis://HOST:PORT/DATABASE, or rediss:// for TLS
    password_file: Path | None = None
    ca_file: Path | None = None  # PEM; for rediss:// only


def connect(access: RedisAccess) -> Redis:
    """A client; it connects when it is used. Raises ValueError for what is no address."""
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
        retry=Retry(NoBackoff(), 0),  # an answer that got lost may be that of an insertion
        protocol=2,  # Valkey and every Redis speak it
    )
    return Redis.from_pool(pool)  # which closes the pool with the client: the constructor would not


def cluster_refusal(address: str) -> LedgerError:
    return LedgerError(
        f"{without_credentials(address)} is a Redis Cluster, whose nodes hold a part of the keys each: give the "
        "address of a single Redis or Valkey, with replicas if you like, and with cluster-enabled no"
    )


class _FreshTls(SSLConnection):
    """Reads the CA's file at each connection: redis-py keeps what it has read first."""

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
        return self.get_credentials()  # a mounted secret: a few bytes from memory
