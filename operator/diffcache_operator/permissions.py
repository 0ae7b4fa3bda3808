"""Whether the operator may do what it does; asked at the start, after a refused call, and now and then.

Without this a missing right is a line in a log, for ever repeated, while everything looks alive.
"""

from __future__ import annotations

import asyncio

from diffcache_core.names import GROUP, PLURAL
from diffcache_operator.clients.api import Api

_CACHES = f"{PLURAL}.{GROUP}"
REQUIRED: tuple[tuple[str, str], ...] = (
    *((verb, _CACHES) for verb in ("get", "list", "watch")),
    ("update", f"{_CACHES}/status"),
    ("patch", f"{_CACHES}/scale"),
    *(
        (verb, kind)
        for kind in ("statefulsets.apps", "poddisruptionbudgets.policy", "services", "configmaps", "serviceaccounts")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    *((verb, "pods") for verb in ("get", "list", "watch")),
    *((verb, "persistentvolumeclaims") for verb in ("get", "list", "watch", "patch")),
    *((verb, "events") for verb in ("list", "create")),
)


class MissingPermission(Exception):
    """The message names each right that is missing, and what to do."""


async def check_permissions(api: Api, namespaces: tuple[str, ...]) -> None:
    """Raises MissingPermission, or ApiError."""
    asked = [(namespace, verb, resource) for namespace in namespaces or ("",) for verb, resource in REQUIRED]
    answers = await asyncio.gather(*(api.may(*question) for question in asked))
    missing = [
        f"{verb} {resource} in {namespace or 'all namespaces'}"
        for (namespace, verb, resource), allowed in zip(asked, answers, strict=True)
        if not allowed
    ]
    if missing:
        raise MissingPermission(
            f"the operator's ServiceAccount may not: {'; '.join(missing)}. Mend its Role: `helm upgrade` renders it, "
            "and watchNamespaces says where it holds"
        )
