"""Does what a plan says."""

from __future__ import annotations

from diffcache_operator.clients.api import JSON, Api
from diffcache_operator.plan import Action, Apply, SetOwners


async def carry_out(api: Api, action: Action) -> None:
    """Raises ApiError."""
    if isinstance(action, Apply):
        await api.apply(action.body)
        return
    # With the version it was read in: what somebody else changed meanwhile is not undone.
    metadata = action.claim.metadata
    version = {"resourceVersion": metadata.resource_version}
    if isinstance(action, SetOwners):
        patch: JSON = {"metadata": {**version, "ownerReferences": [owner.as_json() for owner in action.owners]}}
    else:
        patch = {"metadata": version, "spec": {"resources": {"requests": {"storage": action.size}}}}
    await api.merge("v1", "PersistentVolumeClaim", metadata.namespace, metadata.name, patch)
