"""States in a bucket of S3 or of what speaks like it: shared by all processes of a cache."""

from __future__ import annotations

from datetime import timedelta

from obstore.store import S3Store

from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.store import StateStore

CONNECT_SECONDS, REQUEST_SECONDS, RETRIES = 1.0, 10.0, 1
"""Of one request; a look-up gives up sooner by its own deadline. More time and retries keep more of what a slow bucket
is given, and hold up the keeper as long."""


class BucketMissing(Exception):
    """Somebody has removed the bucket, or never made it."""


class S3StateStore(StateStore):
    """Credentials and anything else come from the environment, as AWS names them."""

    is_shared = True

    def __init__(self, config: StoreConfig) -> None:
        seconds = timedelta(seconds=REQUEST_SECONDS)
        self._store = S3Store(
            config.bucket,
            prefix=config.prefix or None,
            region=config.region or None,
            endpoint=config.endpoint or None,
            virtual_hosted_style_request=not config.endpoint,  # others than Amazon rarely have such names
            client_options={
                "allow_http": config.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": seconds,
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": seconds},
        )

    async def get(self, state_id: str) -> bytes:
        try:
            return await super().get(state_id)
        except FileNotFoundError as error:
            if "NoSuchBucket" in f"{error} {error.__cause__}":  # says nothing about the state
                raise BucketMissing(str(error).splitlines()[0]) from None
            raise
