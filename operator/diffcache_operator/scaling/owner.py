"""Who writes `spec.serving.replicas`, as the API server records it in managedFields. Pure.

Two autoscalers on one number would undo each other for ever. A person's write is none of that: the loop takes it as
where to go on from.
"""

from __future__ import annotations

from diffcache_core.kubernetes.metadata import Metadata
from diffcache_core.names import SCALER


def other_scaler(resource: Metadata) -> str | None:
    """The field manager that wrote the replicas last, if it is another autoscaler; else None.

    Autoscalers write through the scale subresource, as the horizontal pod autoscaler does, which is KEDA's way too.
    `kubectl scale` does so as well, but is a person. The API server notes no time of such a write.
    """
    for entry in resource.managed_fields:
        if entry.subresource == "scale" and entry.includes("spec", "serving", "replicas"):
            return None if entry.manager == SCALER or entry.manager.startswith("kubectl") else entry.manager
    return None
