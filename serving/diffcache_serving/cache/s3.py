"""A store of states in a bucket of S3 or a compatible service. All processes of a cache share it."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import S3Store

from diffcache_core.net.proxies import host_of
from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.store import StateStore
from diffcache_serving.environment import drop_foreign_variables
from diffcache_serving.local_hosts import is_local
from diffcache_serving.values.errors import ConfigError

CONNECT_SECONDS, REQUEST_SECONDS, RETRIES = 1.0, 10.0, 1
"""Timeouts (seconds) and retries of one request. A look-up gives up sooner, by its own deadline. With higher values
fewer states are lost when the bucket is slow, but the keeper is delayed as long."""


AMAZON = "amazonaws.com"
DEFAULT_REGION = "us-east-1"  # the default of Amazon; other services accept it for any region


class BucketMissing(Exception):
    """The bucket does not exist: it was removed, or never created."""


def address_of(config: StoreConfig) -> tuple[str, bool]:
    """Returns the base URL of the bucket, and whether the bucket's name is part of its host.

    With Amazon the name is part of the host, because newer buckets there support nothing else. Exceptions: a bucket
    name that contains a dot, because no certificate covers such a host; and other services, which rarely have such
    hosts.
    """
    if config.endpoint:
        return config.endpoint.rstrip("/"), False
    region = config.region or DEFAULT_REGION
    host = f"s3.{region}.{AMAZON}" + (".cn" if region.startswith("cn-") else "")
    return (f"https://{host}", False) if "." in config.bucket else (f"https://{config.bucket}.{host}", True)


def _straight(endpoint: str) -> dict[str, str]:
    """Returns options that bypass the proxy of the environment for a bucket in our own cluster or on this machine.

    Exceptions are only possible for a proxy that is set explicitly, so this sets a proxy that is never used.
    """
    host = host_of(endpoint)
    return {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": host} if is_local(host) else {}


def _trusted(ca_file: Path | None) -> dict[str, bytes]:
    """Returns the option for the CA certificates. Raises ConfigError if `ca_file` cannot be used.

    The file is read once, so a new CA needs a restart, as new credentials do.
    """
    if ca_file is None:
        return {}
    try:
        ssl.create_default_context(cafile=str(ca_file))
        return {"root_certificate": ca_file.read_bytes()}
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or error
        raise ConfigError(f"the certificates of cache.store.s3.caSecretRef: {ca_file}: {why}") from None


def _opened(bucket: str, **options: Any) -> S3Store:
    drop_foreign_variables()  # S3Store reads the environment in its constructor
    try:
        return S3Store(bucket, **options)
    except BaseError as error:
        missing = re.search(r"Missing\w+", str(error))  # obstore has no separate error type for this
        raise ConfigError(
            f"the bucket {bucket} cannot be used ({missing[0] if missing else error}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, both or neither"
        ) from None


class S3StateStore(StateStore):
    """States in a bucket. Only the credentials come from the environment, under the names that AWS uses."""

    is_shared = True

    def __init__(self, config: StoreConfig, on_up: Callable[[float], None] = lambda up: None) -> None:
        """`on_up` is called with 1 after each operation that the bucket answered, and with 0 after each that failed.

        Raises ConfigError if the CA certificates cannot be used, or if one of the two credentials is missing.
        """
        self._on_up = on_up
        seconds = timedelta(seconds=REQUEST_SECONDS)
        endpoint, in_host = address_of(config)
        self._store = _opened(
            config.bucket,
            prefix=config.prefix or None,
            region=config.region or DEFAULT_REGION,
            endpoint=endpoint,
            virtual_hosted_style_request=in_host,
            disable_bulk_delete=True,  # not every service has DeleteObjects, and it saves nothing for a single state
            client_options=_straight(endpoint)
            | _trusted(config.ca_file)
            | {
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": seconds,
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": seconds},
        )

    async def put(self, state_id: str, data: bytes) -> None:
        with self._told():
            await super().put(state_id, data)

    async def get(self, state_id: str) -> bytes:
        with self._told():
            try:
                return await super().get(state_id)
            except FileNotFoundError as error:
                if "NoSuchBucket" in f"{error} {error.__cause__}":  # it does not mean that this state is missing
                    raise BucketMissing(str(error).splitlines()[0]) from None
                raise

    async def check(self) -> None:
        with contextlib.suppress(Exception):  # `on_up` has already reported it
            await self.get("no-state")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Reports to `on_up` whether the bucket answered.

        A look-up that ran into its deadline reports nothing: it is cancelled, and CancelledError is not an Exception.
        """
        try:
            yield
        except FileNotFoundError:  # this is also an answer
            self._on_up(1)
            raise
        except Exception:
            self._on_up(0)
            raise
        self._on_up(1)
