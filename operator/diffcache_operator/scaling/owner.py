"""Who writes `spec.serving.replicas`, as the API server records it in managedFields. Pure.

Two autoscalers on one number would undo each other for ever. A person's write is none of that: the loop takes it as
where to go on from.
"""

from __future__ import annotations

from typing import Any

from diffcache_core.names import SCALER

JSON = dict[str, Any]

_REPLICAS = ("f:spec", "f:serving", "f:replicas")
_MODE = ("f:spec", "f:autoscaling", "f:mode")


def other_scaler(resource: JSON) -> str | None:
    """A field manager that scales the resource beside us; None if there is none.

    It is one that wrote the replicas through the scale subresource, as the horizontal pod autoscaler does, which is
    KEDA's way too, and did so after `autoscaling.mode` was set: what it wrote before is ours to take over.
    """
    entries = resource["metadata"].get("managedFields", [])
    told = max((_time(entry) for entry in entries if _owns(entry, _MODE)), default="")
    others = [
        str(entry["manager"])
        for entry in entries
        if entry.get("subresource") == "scale"
        and entry.get("manager") != SCALER
        and not str(entry.get("manager")).startswith("kubectl")
        and _owns(entry, _REPLICAS)
        and _time(entry) > told
    ]
    return others[0] if others else None


def _owns(entry: JSON, path: tuple[str, ...]) -> bool:
    fields = entry.get("fieldsV1", {})
    for part in path:
        if not isinstance(fields, dict) or part not in fields:
            return False
        fields = fields[part]
    return True


def _time(entry: JSON) -> str:
    """RFC 3339 in UTC, which is ordered as text."""
    return str(entry.get("time", ""))
