"""Checks the operator's permissions: at the start, after a refused call, and now and then.

Without this check a missing right would only show as a repeated line in the log, while the operator looks healthy.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from diffcache_core.names import GROUP, PLURAL
from diffcache_operator.clients.api import Api
from diffcache_operator.scopes import ALL_LEASE, LEASE


class Right(NamedTuple):
    verb: str
    resource: str  # plural.group/subresource
    name: str = ""  # of the only object that the right is about; empty: any object


_CACHES = f"{PLURAL}.{GROUP}"
_LEASES = "leases.coordination.k8s.io"
REQUIRED: tuple[Right, ...] = (
    *(Right(verb, _CACHES) for verb in ("get", "list", "watch")),
    Right("update", f"{_CACHES}/status"),
    Right("patch", f"{_CACHES}/scale"),
    *(
        Right(verb, kind)
        for kind in ("statefulsets.apps", "poddisruptionbudgets.policy", "services", "configmaps", "serviceaccounts")
        for verb in ("get", "list", "watch", "create", "patch")
    ),
    *(Right(verb, "pods") for verb in ("get", "list", "watch")),
    *(Right(verb, "persistentvolumeclaims") for verb in ("get", "list", "watch", "patch")),
    *(Right(verb, "events") for verb in ("list", "create")),
    Right("create", _LEASES),  # RBAC cannot limit create to a name
    *(Right(verb, _LEASES, name) for name in (LEASE, ALL_LEASE) for verb in ("get", "update", "delete")),
)


class MissingPermission(Exception):
    """Rights are missing. The message names each of them, and what to do."""


async def check_permissions(api: Api, namespaces: tuple[str, ...]) -> None:
    """Asks the API server about each required right. Raises MissingPermission or ApiError."""
    asked = [(namespace, right) for namespace in namespaces or ("",) for right in REQUIRED]
    answers = await asyncio.gather(*(api.may(namespace, *right) for namespace, right in asked))
    missing = [
        f"{' '.join(filter(None, right))} in {namespace or 'all namespaces'}"
        for (namespace, right), allowed in zip(asked, answers, strict=True)
        if not allowed
    ]
    if missing:
        raise MissingPermission(
            f"the operator's ServiceAccount may not: {'; '.join(missing)}. Mend its Role: `helm upgrade` renders it, "
            "and watchNamespaces says where it holds"
        )
