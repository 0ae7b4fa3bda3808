"""Which Prometheus is asked for a cache. Pure."""

from __future__ import annotations

from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.clients.prometheus import Access, Source


class NoSource(Exception):
    """Nobody is asked. `reason`: of a condition. The message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def source_of(resource: DiffusionCache, access: Access) -> Source:
    """Raises NoSource.

    What a resource names itself gets neither the token nor the headers of the operator's own, but where it names the
    very same URL and no headers: a header chooses whose figures are read, which is not the resource's to choose there.
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
