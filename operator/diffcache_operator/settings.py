"""What the operator's Deployment tells it, by environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from diffcache_core.names import MILVUS_IMAGE, REDIS_IMAGE, SERVING_IMAGE
from diffcache_operator.images import Images

PREFIX = "DIFFCACHE_"


class SettingsError(ValueError):
    """An environment variable cannot be used. The message says which, and what to write."""


@dataclass(frozen=True)
class Settings:
    namespaces: tuple[str, ...] = ()  # to watch; none means all
    serving_image: str = ""  # of new resources
    milvus_image: str = MILVUS_IMAGE
    redis_image: str = REDIS_IMAGE
    pull_secrets: tuple[str, ...] = ()  # on every pod
    resync_seconds: float = 600.0
    log_level: str = "info"

    @property
    def images(self) -> Images:
        """Of new resources that name none."""
        return Images(self.serving_image, self.milvus_image, self.redis_image)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises SettingsError."""

        def read(name: str, default: str = "") -> str:
            return environment.get(PREFIX + name, "").strip() or default

        def names(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in read(name).split(",") if part.strip())

        resync, level = read("RESYNC_SECONDS", "600"), read("LOG_LEVEL", "info").lower()
        if not resync.isdecimal() or int(resync) < 10:
            raise SettingsError(f"{PREFIX}RESYNC_SECONDS must be a number of seconds from 10 on, is {resync!r}")
        if level not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"{PREFIX}LOG_LEVEL must be debug, info, warning or error, is {level!r}")
        return cls(
            namespaces=names("WATCH_NAMESPACES"),
            serving_image=read("SERVING_IMAGE", f"{SERVING_IMAGE}:{version('diffcache')}"),
            milvus_image=read("MILVUS_IMAGE", MILVUS_IMAGE),
            redis_image=read("REDIS_IMAGE", REDIS_IMAGE),
            pull_secrets=names("IMAGE_PULL_SECRETS"),
            resync_seconds=float(resync),
            log_level=level,
        )
