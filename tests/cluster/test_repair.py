"""Children that go or change come back; what is somebody else's is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from diffcache_operator.differences import includes
from tests.cluster.kube import BIN, JSON, Kube, cache, eventually, run

pytestmark = pytest.mark.cluster

CHILDREN = (
    ("serviceaccount", "idle"),
    ("configmap", "idle-config"),
    ("service", "idle"),
    ("service", "idle-pods"),
    ("statefulset", "idle"),
)


@pytest.fixture
def idle(operator: Kube, namespace: Kube) -> Kube:
    """A cache without pods: its children are all there."""
    namespace.apply(cache("idle", serving={"replicas": 0}))
    namespace.wait_reason("idle", "ScaledToZero")
    return namespace


def test_a_deleted_child_is_back_within_seconds(idle: Kube) -> None:
    for kind, name in CHILDREN:
        before = idle.get(kind, name)["metadata"]["uid"]
        idle("delete", kind, name)
        eventually(lambda kind=kind, name=name, before=before: is_new(idle, kind, name, before), 15)  # type: ignore[misc]


def is_new(idle: Kube, kind: str, name: str, before: str) -> bool:
    return idle.exists(kind, name) and idle.get(kind, name)["metadata"]["uid"] != before


def test_an_edit_by_hand_is_undone_and_a_foreign_field_stays(idle: Kube) -> None:
    edits: list[tuple[str, str, JSON, str]] = [
        ("service", "idle", {"spec": {"selector": {"app.kubernetes.io/component": "other"}}}, "serving"),
        ("configmap", "idle-config", {"data": {"serving.json": "{}"}}, '"name": "idle"'),
        ("statefulset", "idle", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}, "45"),
        ("serviceaccount", "idle", {"automountServiceAccountToken": True}, "false"),
    ]
    for kind, name, edit, wanted in edits:
        idle.patch(kind, name, {"metadata": {"annotations": {"team": "art"}}})
        idle.patch(kind, name, edit)
        eventually(lambda kind=kind, name=name, wanted=wanted: wanted in repaired(idle, kind, name), 15)  # type: ignore[misc]
        assert idle.get(kind, name)["metadata"]["annotations"]["team"] == "art"


def repaired(idle: Kube, kind: str, name: str) -> str:
    child = idle.get(kind, name)
    spec = child.get("spec", {})
    fields = {
        "service": spec.get("selector", {}).get("app.kubernetes.io/component"),
        "configmap": child.get("data", {}).get("serving.json"),
        "statefulset": spec.get("template", {}).get("spec", {}).get("terminationGracePeriodSeconds"),
        "serviceaccount": json.dumps(child.get("automountServiceAccountToken")),
    }
    return str(fields[kind])


def test_a_replica_count_set_on_the_stateful_set_is_not_kept(idle: Kube) -> None:
    """There is one input, spec.serving.replicas; whoever scales has to write there."""
    idle("scale", "statefulset", "idle", "--replicas=1")
    eventually(lambda: idle.get("statefulset", "idle")["spec"]["replicas"] == 0, 15)
    told = "StatefulSet idle: spec.replicas changed by kubectl"
    eventually(lambda: told in str(idle.get("diffusioncache", "idle")["status"].get("correction")), 15)
    assert told in str(idle.list("event", "", "--field-selector=reason=PutRight"))


def test_an_object_of_somebody_else_is_not_taken(operator: Kube, namespace: Kube) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    namespace.apply(service)
    namespace.apply(cache("web", serving={"replicas": 0}))
    namespace.wait_reason("web", "NameTaken", "Stalled")
    message = namespace.wait_reason("web", "NameTaken")
    assert "Service web" in message
    assert namespace.get("service", "web")["spec"]["selector"] == {"app": "web"}
    namespace("delete", "service", "web")  # nothing of ours was changed, so nothing tells us: the next look finds it
    namespace.wait_reason("web", "ScaledToZero", within=60)


def test_render_is_what_is_applied(idle: Kube, tmp_path: Path) -> None:
    """`diffcache render` on a laptop tells what the operator has put into the cluster, field by field."""
    manifest = tmp_path / "idle.yaml"
    manifest.write_text(yaml.safe_dump(cache("idle", serving={"replicas": 0})))
    text = run([str(BIN / "diffcache"), "render", "-f", str(manifest), "-n", idle.namespace])
    rendered = [document for document in yaml.safe_load_all(text) if document]
    assert sorted((r["kind"].lower(), r["metadata"]["name"]) for r in rendered) == sorted(CHILDREN)
    for wanted in rendered:
        name = wanted["metadata"]["name"]
        live = json.loads(idle("get", wanted["kind"], name, "-o", "json", "--show-managed-fields"))
        assert includes(live, wanted), wanted["kind"]
        assert live["metadata"]["ownerReferences"][0]["name"] == "idle"
        managers = {field["manager"] for field in live["metadata"]["managedFields"] if field["operation"] == "Apply"}
        assert managers == {"diffcache-operator"}


def test_deletion_leaves_nothing_even_without_an_operator(namespace: Kube, no_operator: Kube) -> None:
    """What there is goes by ownership; nothing waits for a finalizer."""
    namespace.apply(cache("orphan", serving={"replicas": 0}))
    assert namespace.get("diffusioncache", "orphan")["metadata"].get("finalizers", []) == []
    namespace("delete", "diffusioncache", "orphan", "--timeout=20s")
