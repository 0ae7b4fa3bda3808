"""Does what a plan says."""

from __future__ import annotations

from diffcache_operator.clients.api import Api
from diffcache_operator.observed import name_of
from diffcache_operator.plan import Action, Apply


async def carry_out(api: Api, action: Action) -> None:
    """Raises ApiError."""
    if isinstance(action, Apply):
        await api.apply(action.body)
        return
    metadata = action.claim["metadata"]
    # With the version it was read in: a list of owners that somebody else changed meanwhile is not undone.
    patch = {"metadata": {"ownerReferences": action.owners, "resourceVersion": metadata["resourceVersion"]}}
    await api.merge("v1", "PersistentVolumeClaim", metadata["namespace"], name_of(action.claim), patch)
