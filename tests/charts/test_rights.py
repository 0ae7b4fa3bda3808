"""The operator may do what it does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from diffcache_operator.permissions import REQUIRED
from tests.charts.helm import JSON, Chart, of_kind

NAMESPACES = ("--set", "watchNamespaces={team-a,team-b}")


def rights(objects: list[JSON]) -> Iterator[tuple[str, str, str, str]]:
    """Group, resource, verb and name, if there is any, of every rule."""
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert rule.keys() - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
            parts = (rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""]))
            yield from product(*parts)


@pytest.mark.parametrize("arguments", [(), NAMESPACES], ids=["cluster", "namespaces"])
def test_no_secrets_and_no_wildcards(chart: Chart, arguments: tuple[str, ...]) -> None:
    granted = set(rights(chart.render(*arguments)))
    assert not any("secret" in resource or "*" in (group, resource, verb) for group, resource, verb, _ in granted)


def test_the_operator_may_do_what_it_asks_for_and_nothing_else(chart: Chart) -> None:
    asked = set()
    for right in REQUIRED:
        kind, _, subresource = right.resource.partition("/")
        resource, _, group = kind.partition(".")
        asked.add((group, f"{resource}/{subresource}".rstrip("/"), right.verb, right.name))
    asked.add(("diffcache.io", "diffusioncaches/finalizers", "update", ""))  # asked for by some API servers only
    assert set(rights(of_kind(chart.render(), "ClusterRole"))) == asked


def test_the_whole_cluster(chart: Chart) -> None:
    objects = chart.render()
    (role,) = of_kind(objects, "ClusterRole")
    (binding,) = of_kind(objects, "ClusterRoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": role["metadata"]["name"],
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "diffcache", "namespace": "system"}]


def test_some_namespaces_have_a_role_each_and_the_cluster_none(chart: Chart) -> None:
    objects = [one for one in chart.render(*NAMESPACES) if "annotations" not in one["metadata"]]  # no hooks
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    roles, bindings = of_kind(objects, "Role"), of_kind(objects, "RoleBinding")
    assert [one["metadata"]["namespace"] for one in roles] == ["team-a", "team-b"]
    assert [one["metadata"]["namespace"] for one in bindings] == ["team-a", "team-b"]
    for role, binding in zip(roles, bindings, strict=True):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "diffcache", "namespace": "system"}]
    (cluster_role,) = of_kind(chart.render(), "ClusterRole")
    assert all(role["rules"] == cluster_role["rules"] for role in roles)


def test_roles_may_come_from_elsewhere(chart: Chart) -> None:
    objects = chart.render("--set", "rbac.create=false,serviceAccount.create=false,serviceAccount.name=given")
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "given"
