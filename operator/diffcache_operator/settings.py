"""The operator's settings: the environment variables of its Deployment."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from diffcache_core.foreign import quoted
from diffcache_core.names import MILVUS_IMAGE, REDIS_IMAGE, SERVING_IMAGE
from diffcache_core.resource.manifest import explain_validation
from diffcache_core.resource.spec import PrometheusHeader, PrometheusSpec
from diffcache_operator.clients.prometheus import Access
from diffcache_operator.desired.placement import PodDefaults
from diffcache_operator.images import Images

PREFIX = "DIFFCACHE_"
_HEADERS = TypeAdapter(list[PrometheusHeader])
Parsed = TypeVar("Parsed")


class SettingsError(ValueError):
    """A setting cannot be used. The message says which value of the chart it is, which environment variable, and what
    to write."""


@dataclass(frozen=True)
class Settings:
    namespaces: tuple[str, ...] = ()  # namespaces to watch; none means all
    serving_image: str = ""  # the default image of new resources
    milvus_image: str = MILVUS_IMAGE
    redis_image: str = REDIS_IMAGE
    pods: PodDefaults = field(default_factory=PodDefaults)  # defaults for the pods of all resources
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}/{os.getpid()}")
    """Namespace and name of our pod, or host and process id. Other operators that wait for this one see it."""
    resync_seconds: float = 600.0
    log_level: str = "info"
    prometheus: Access = field(default_factory=Access)  # for resources that name no Prometheus

    @property
    def images(self) -> Images:
        """Default images of new resources."""
        return Images(self.serving_image, self.milvus_image, self.redis_image)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads the settings. Raises SettingsError."""

        def read(name: str, default: str = "") -> str:
            return environment.get(PREFIX + name, "").strip() or default

        def names(name: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in read(name).split(",") if part.strip())

        resync, level = read("RESYNC_SECONDS", "600"), read("LOG_LEVEL", "info").lower()
        if not resync.isdecimal() or int(resync) < 10:
            raise SettingsError(
                f"resyncSeconds ({PREFIX}RESYNC_SECONDS) must be a number of seconds from 10 on, is {resync!r}"
            )
        if level not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"logLevel ({PREFIX}LOG_LEVEL) must be debug, info, warning or error, is {level!r}")
        fixed_ids = read("FIXED_IDS", "true").lower()
        if fixed_ids not in ("true", "false"):
            raise SettingsError(f"{PREFIX}FIXED_IDS must be true or false, is {fixed_ids!r}")
        pod = "/".join(filter(None, (read("POD_NAMESPACE"), read("POD_NAME"))))
        return cls(
            **({"identity": pod} if pod else {}),
            namespaces=names("WATCH_NAMESPACES"),
            serving_image=read("SERVING_IMAGE", f"{SERVING_IMAGE}:{version('diffcache')}"),
            milvus_image=read("MILVUS_IMAGE", MILVUS_IMAGE),
            redis_image=read("REDIS_IMAGE", REDIS_IMAGE),
            pods=PodDefaults(names("IMAGE_PULL_SECRETS"), fixed_ids == "true"),
            resync_seconds=float(resync),
            log_level=level,
            prometheus=_prometheus(read, names),
        )


def _prometheus(read: Callable[[str], str], names: Callable[[str], tuple[str, ...]]) -> Access:
    """Reads the settings of Prometheus. Raises SettingsError."""
    url, folder = read("PROMETHEUS_URL"), read("PROMETHEUS_HEADERS_FOLDER")
    token_file, ca_file, headers = (read(f"PROMETHEUS_{name}") for name in ("TOKEN_FILE", "CA_FILE", "HEADERS"))
    allowed, own_only = names("PROMETHEUS_ALLOWED_URLS"), read("PROMETHEUS_OWN_URL_ONLY")
    if not url and (token_file or ca_file or headers or folder):
        raise SettingsError(
            "prometheus.tokenSecret, caSecret, headers and headersSecret belong to prometheus.url: set it, too "
            f"({PREFIX}PROMETHEUS_URL)"
        )
    if own_only not in ("", "true", "false"):
        raise SettingsError(
            f"prometheus.ownUrlOnly ({PREFIX}PROMETHEUS_OWN_URL_ONLY) must be true or false, is '{quoted(own_only)}'"
        )
    for what, each in (("url", (url,) if url else ()), ("allowedUrls", allowed)):
        for one in each:
            _checked(what, partial(PrometheusSpec, url=one))
    found = _checked("headers", lambda: _HEADERS.validate_json(headers or "[]"))
    return Access(
        url,
        Path(token_file) if token_file else None,
        Path(ca_file) if ca_file else None,
        tuple((header.name, header.value) for header in found),
        Path(folder) if folder else None,
        own_only == "true",
        allowed,
    )


def _checked(what: str, parse: Callable[[], Parsed]) -> Parsed:
    """Parses a setting. `what`: its key below the chart's value `prometheus`. Raises SettingsError."""
    try:
        return parse()
    except ValidationError as error:
        variable = f"{PREFIX}PROMETHEUS_{what.replace('Urls', '_urls').upper()}"
        advice = " ".join(explain_validation(error).split())
        raise SettingsError(f"prometheus.{what} ({variable}): {advice}") from None
