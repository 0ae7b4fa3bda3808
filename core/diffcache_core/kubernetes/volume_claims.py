"""PersistentVolumeClaims."""

from __future__ import annotations

from collections.abc import Mapping

from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.view import Condition, View


class Resources(View):
    requests: Mapping[str, str] = {}


class VolumeClaimSpec(View):
    storage_class_name: str = ""
    resources: Resources = Resources()


class VolumeClaimStatus(View):
    phase: str = ""
    capacity: Mapping[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    allocated_resource_statuses: Mapping[str, str] = {}


class VolumeClaim(ObjectView):
    spec: VolumeClaimSpec = VolumeClaimSpec()
    status: VolumeClaimStatus = VolumeClaimStatus()

    @property
    def wanted(self) -> str:
        """The size that the claim asks for, as a quantity; empty if it names none."""
        return self.spec.resources.requests.get("storage", "")

    @property
    def capacity(self) -> str:
        """The size of its volume, as a quantity; empty while there is no volume."""
        return self.status.capacity.get("storage", "")

    @property
    def size(self) -> str:
        """The size of the volume, or else the size that the claim asks for."""
        return self.capacity or self.wanted

    @property
    def is_bound(self) -> bool:
        return self.status.phase == "Bound"
