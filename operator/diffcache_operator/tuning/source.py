"""Chooses which Prometheus to ask about a cache. Pure."""

from __future__ import annotations

from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.clients.prometheus import Access, Source


class NoSource(Exception):
    """There is no Prometheus to ask. `reason`: the reason of the condition. The message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def source_of(resource: DiffusionCache, access: Access) -> Source:
    """Returns the Prometheus to ask. Raises NoSource.

    A URL that the resource names gets neither the token nor the headers of the operator's own Prometheus. The only
    exception is exactly the operator's URL, named without headers: a header chooses whose figures are read, and a
    resource must not choose that on the operator's Prometheus.
    """
    asked = resource.spec.prometheus
    headers = tuple((header.name, header.value) for header in asked.headers or ())
    if asked.url is None or (asked.url == access.url and not headers):
        if access.url:
            return Source(access.url)
        advice = "set spec.prometheus.url, or prometheus.url of the operator's chart"
        raise NoSource("NoPrometheus", f"nobody has said which Prometheus scrapes the pods: {advice}")
    if access.own_only:
        advice = "remove spec.prometheus, or ask who runs the operator (prometheus.ownUrlOnly of its chart)"
        raise NoSource("PrometheusNotAllowed", f"this operator asks its own Prometheus only: {advice}")
    if access.allowed and asked.url.rstrip("/") not in {url.rstrip("/") for url in access.allowed}:
        advice = "name one of its list, or ask who runs the operator (prometheus.allowedUrls of its chart)"
        raise NoSource("PrometheusNotAllowed", f"this operator does not ask spec.prometheus.url: {advice}")
    return Source(asked.url, resource.metadata.namespace, headers)
