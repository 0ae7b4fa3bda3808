"""Carries out the actions of a plan."""

from __future__ import annotations

from diffcache_operator.clients.api import JSON, Api
from diffcache_operator.plan import Action, Apply, SetOwners


async def carry_out(api: Api, action: Action) -> None:
    """Writes one action to the API server. Raises ApiError."""
    if isinstance(action, Apply):
        await api.apply(action.body)
        return
    # Send the version that was read: the server then refuses to overwrite a change that somebody made meanwhile.
    metadata = action.claim.metadata
    version = {"resourceVersion": metadata.resource_version}
    if isinstance(action, SetOwners):
        patch: JSON = {"metadata": {**version, "ownerReferences": [owner.as_json() for owner in action.owners]}}
    else:
        patch = {"metadata": version, "spec": {"resources": {"requests": {"storage": action.size}}}}
    await api.merge("v1", "PersistentVolumeClaim", metadata.namespace, metadata.name, patch)
