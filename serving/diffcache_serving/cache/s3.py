"""States in a bucket of S3 or of what speaks like it: shared by all processes of a cache."""

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
"""Of one request; a look-up gives up sooner by its own deadline. More time and retries keep more of what a slow bucket
is given, and hold up the keeper as long."""


AMAZON = "amazonaws.com"
DEFAULT_REGION = "us-east-1"  # Amazon's own; other services take it for any


class BucketMissing(Exception):
    """Somebody has removed the bucket, or never made it."""


def address_of(config: StoreConfig) -> tuple[str, bool]:
    """The URL that a bucket's keys are appended to, and whether the bucket's name is part of its host.

    It is, with Amazon: that is the only way of newer buckets there. But no certificate covers a name with a dot in it,
    and others than Amazon rarely have such hosts.
    """
    if config.endpoint:
        return config.endpoint.rstrip("/"), False
    region = config.region or DEFAULT_REGION
    host = f"s3.{region}.{AMAZON}" + (".cn" if region.startswith("cn-") else "")
    return (f"https://{host}", False) if "." in config.bucket else (f"https://{config.bucket}.{host}", True)


def _straight(endpoint: str) -> dict[str, str]:
    """Options that keep a proxy of the environment from standing before a bucket of our own cluster or machine: only a
    proxy that is named can have exceptions, so one is named that nobody asks."""
    host = host_of(endpoint)
    return {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": host} if is_local(host) else {}


def _trusted(ca_file: Path | None) -> dict[str, bytes]:
    """Read once: a new authority needs a restart, as new credentials do. Raises ConfigError."""
    if ca_file is None:
        return {}
    try:
        ssl.create_default_context(cafile=str(ca_file))
        return {"root_certificate": ca_file.read_bytes()}
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or error
        raise ConfigError(f"the certificates of cache.store.s3.caSecretRef: {ca_file}: {why}") from None


def _opened(bucket: str, **options: Any) -> S3Store:
    drop_foreign_variables()  # it reads them when it is made
    try:
        return S3Store(bucket, **options)
    except BaseError as error:
        missing = re.search(r"Missing\w+", str(error))  # obstore has no error of its own for it
        raise ConfigError(
            f"the bucket {bucket} cannot be used ({missing[0] if missing else error}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, both or neither"
        ) from None


class S3StateStore(StateStore):
    """Credentials, and nothing else, come from the environment, as AWS names them."""

    is_shared = True

    def __init__(self, config: StoreConfig, on_up: Callable[[float], None] = lambda up: None) -> None:
        """`on_up` is called with 1 after each operation that the bucket answered, 0 after each that failed.

        Raises ConfigError for credentials of which a part is missing.
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
            disable_bulk_delete=True,  # not everybody has DeleteObjects, and for one state it saves nothing
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
                if "NoSuchBucket" in f"{error} {error.__cause__}":  # says nothing about the state
                    raise BucketMissing(str(error).splitlines()[0]) from None
                raise

    async def check(self) -> None:
        with contextlib.suppress(Exception):  # `on_up` has been called with it
            await self.get("no-state")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A look-up that was given up tells nothing: it is cancelled, which is no Exception."""
        try:
            yield
        except FileNotFoundError:  # an answer, too
            self._on_up(1)
            raise
        except Exception:
            self._on_up(0)
            raise
        self._on_up(1)
