"""The metadata of all objects: names, versions, owners, writers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, ConfigDict

from diffcache_core.kubernetes.view import Time, View

NO_TIME = datetime.min.replace(tzinfo=UTC)  # Go's zero time


class OwnerReference(View):
    """An owner of an object. It keeps unknown fields, because a change of the owners must write all of them back."""

    model_config = ConfigDict(extra="allow")

    api_version: str = ""
    kind: str
    name: str
    uid: str
    controller: bool = False

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_unset=True)


class ManagedFields(View):
    """The fields that one writer has written. The API server records no time for a write through the scale
    subresource."""

    manager: str = ""
    subresource: str = ""
    time: Time = None
    fields_v1: Mapping[str, Any] = {}

    def includes(self, *path: str) -> bool:
        """Returns whether the field at this path is among them."""
        fields: Any = self.fields_v1
        for part in path:
            if not isinstance(fields, dict) or f"f:{part}" not in fields:
                return False
            fields = fields[f"f:{part}"]
        return True


class Metadata(View):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: AwareDatetime = NO_TIME
    deletion_timestamp: AwareDatetime | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    managed_fields: tuple[ManagedFields, ...] = ()

    @property
    def controller(self) -> OwnerReference | None:
        return next((owner for owner in self.owner_references if owner.controller), None)


class ObjectView(View):
    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def is_leaving(self) -> bool:
        """True if the object was deleted and still exists."""
        return self.metadata.deletion_timestamp is not None
