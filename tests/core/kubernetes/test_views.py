"""Views of Kubernetes objects: whatever an API server of any version answers is read, and nothing of it is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.metadata import ManagedFields, Metadata
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.stateful_sets import StatefulSet
from diffcache_core.kubernetes.volume_claims import VolumeClaim


@pytest.mark.parametrize("view", [Pod, StatefulSet, VolumeClaim, Event])
def test_a_name_is_enough_and_what_is_new_or_null_is_no_hindrance(view: type[Pod]) -> None:
    read = view.model_validate({"metadata": {"name": "emoji-0", "labels": None}, "status": None, "novel": {"x": 1}})
    assert (read.name, read.namespace, read.metadata.labels, read.is_leaving) == ("emoji-0", "", {}, False)


@pytest.mark.parametrize(
    ("pod_ip", "ready", "deleted", "is_ready"),
    [
        ("10.0.0.1", "True", None, True),
        ("10.0.0.1", "False", None, False),
        ("", "True", None, False),
        ("10.0.0.1", "True", "2026-11-24T10:00:00Z", False),
    ],
)
def test_ready_pods_can_be_asked(pod_ip: str, ready: str, deleted: str | None, is_ready: bool) -> None:
    status = {"podIP": pod_ip, "conditions": [{"type": "Ready", "status": ready}]}
    pod = Pod.model_validate({"metadata": {"name": "emoji-0", "deletionTimestamp": deleted}, "status": status})
    assert pod.is_ready is is_ready


def _event(**fields: Any) -> Event:
    created = "2026-11-24T10:00:00Z"
    return Event.model_validate({"metadata": {"name": "e", "creationTimestamp": created}} | fields)


@pytest.mark.parametrize(
    ("fields", "hour", "times"),
    [
        ({"lastTimestamp": None, "eventTime": None}, 10, 1),
        ({"lastTimestamp": "2026-11-24T11:00:00Z", "count": 3}, 11, 3),
        ({"eventTime": "2026-11-24T12:00:00Z"}, 12, 1),
        ({"lastTimestamp": "0000-01-01T00:00:00Z"}, 10, 1),  # which Go has, and Python has not
        ({"series": {"lastObservedTime": "2026-11-24T13:00:00Z", "count": 7}, "count": 1}, 13, 7),
    ],
)
def test_the_last_time_of_an_event(fields: dict[str, Any], hour: int, times: int) -> None:
    event = _event(**fields)
    assert (event.time, event.times) == (datetime(2026, 11, 24, hour, tzinfo=UTC), times)


def test_owners_are_written_back_as_they_were_read() -> None:
    owners = [
        {"apiVersion": "v1", "kind": "Backup", "name": "b", "uid": "b"},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "s", "controller": True, "novel": "x"},
    ]
    metadata = Metadata.model_validate({"name": "data-emoji-0", "ownerReferences": owners})
    assert [owner.as_json() for owner in metadata.owner_references] == owners
    assert metadata.controller is metadata.owner_references[1]


@pytest.mark.parametrize(
    ("fields", "included"),
    [({"f:spec": {"f:replicas": {}}}, True), ({"f:spec": {}}, False), ({"f:spec": []}, False), (None, False)],
)
def test_fields_of_a_writer(fields: object, included: bool) -> None:
    written = ManagedFields.model_validate({"manager": "kubectl", "fieldsV1": fields})
    assert written.includes("spec", "replicas") is included
