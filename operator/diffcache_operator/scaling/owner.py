"""Who writes `spec.serving.replicas`, as the API server records it in managedFields. Pure.

Two autoscalers on one number would undo each other for ever. A person's write is none of that: the loop takes it as
where to go on from.
"""

from __future__ import annotations

from typing import Any

from diffcache_core.names import SCALER

JSON = dict[str, Any]

_REPLICAS = ("f:spec", "f:serving", "f:replicas")


def other_scaler(resource: JSON) -> str | None:
    """The field manager that wrote the replicas last, if it is another autoscaler; else None.

    Autoscalers write through the scale subresource, as the horizontal pod autoscaler does, which is KEDA's way too.
    `kubectl scale` does so as well, but is a person. The API server notes no time of such a write.
    """
    for entry in resource["metadata"].get("managedFields", []):
        manager = str(entry.get("manager"))
        if entry.get("subresource") == "scale" and _owns(entry, _REPLICAS):
            return None if manager == SCALER or manager.startswith("kubectl") else manager
    return None


def _owns(entry: JSON, path: tuple[str, ...]) -> bool:
    fields = entry.get("fieldsV1", {})
    for part in path:
        if not isinstance(fields, dict) or part not in fields:
            return False
        fields = fields[part]
    return True
