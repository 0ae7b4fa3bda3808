"""Finds who writes `spec.serving.replicas`: the API server records it in managedFields. Pure.

Two autoscalers of one number would undo each other's writes for ever. A person may write it: the loop continues from
the new number.
"""

from __future__ import annotations

from diffcache_core.kubernetes.metadata import Metadata
from diffcache_core.names import SCALER


def other_scaler(resource: Metadata) -> str | None:
    """Returns the field manager that wrote the replicas last, if it is another autoscaler; else None.

    Autoscalers write through the scale subresource: the horizontal pod autoscaler does, and KEDA uses that one.
    `kubectl scale` does so as well, but a person runs it. The API server records no time for such a write.
    """
    for entry in resource.managed_fields:
        if entry.subresource == "scale" and entry.includes("spec", "serving", "replicas"):
            return None if entry.manager == SCALER or entry.manager.startswith("kubectl") else entry.manager
    return None
