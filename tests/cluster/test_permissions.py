"""A missing right is said: by the operator's end, which names it, or in the condition of what cannot be done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from diffcache_operator.permissions import REQUIRED
from tests.cluster.apiproxy import api_proxy
from tests.cluster.conftest import RELEASE, SYSTEM, deployment
from tests.cluster.kube import JSON, Kube, cache, eventually, run
from tests.cluster.operatorprocess import OperatorProcess, operator_process

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

Rules = list[JSON]
Start = Callable[[], OperatorProcess]


@pytest.fixture(scope="module")
def rules(helm: str) -> Rules:
    """Those of the chart."""
    text = run([helm, "template", RELEASE, "charts/diffcache", "-n", SYSTEM, "-s", "templates/rbac.yaml"])
    return list(next(role["rules"] for role in yaml.safe_load_all(text) if role["kind"] == "ClusterRole"))


def without(rules: Rules, verb: str, resource: str) -> Rules:
    """The rules less one right."""
    changed = []
    for rule in rules:
        others = [other for other in rule["resources"] if other != resource]
        verbs = [other for other in rule["verbs"] if other != verb]
        if resource in rule["resources"] and verb in rule["verbs"]:
            changed.append(rule | {"resources": others})
            changed.append(rule | {"resources": [resource], "verbs": verbs})
        else:
            changed.append(rule)
    assert changed != rules
    return [rule for rule in changed if rule["resources"] and rule["verbs"]]


@pytest.fixture(scope="module")
def alone(operator: Kube) -> Iterator[None]:
    """The chart's operator is away, for all tests here."""
    name = deployment(operator)
    operator("scale", "deployment", name, "--replicas=0")
    eventually(lambda: not operator.list("pod", "app.kubernetes.io/name=diffcache"), 60, what="the operator gone")
    yield
    operator("scale", "deployment", name, "--replicas=1")
    operator("rollout", "status", "deployment", name, "--timeout=120s")


@dataclass
class Account:
    """A ServiceAccount and what it may do: in its namespace, or in all."""

    inside: Kube
    kubeconfig: Path
    everywhere: bool

    def may(self, rules: Rules) -> None:
        kind = "ClusterRole" if self.everywhere else "Role"
        name = f"operator-{self.inside.namespace}"
        api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
        subject = {"kind": "ServiceAccount", "name": "operator", "namespace": self.inside.namespace}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        self.inside.apply(
            api | {"kind": kind, "rules": rules},
            api | {"kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]},
        )

    def take(self) -> None:
        if self.everywhere:
            name = f"operator-{self.inside.namespace}"
            self.inside("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")


@contextmanager
def account(inside: Kube, folder: Path, *, everywhere: bool) -> Iterator[Account]:
    """Its kubeconfig is the test's, with a token in place of the certificate."""
    inside("create", "serviceaccount", "operator")
    config = json.loads(inside("config", "view", "--minify", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": inside("create", "token", "operator", "--duration=1h").strip()}
    for cluster in config["clusters"]:
        if authority := cluster["cluster"].get("certificate-authority"):  # relative to the file that names it
            authority = Path(os.environ["KUBECONFIG"]).parent / authority
            cluster["cluster"]["certificate-authority"] = str(authority)
    path = folder / "account.conf"
    path.write_text(json.dumps(config))
    made = Account(inside, path, everywhere)
    yield made
    made.take()


@pytest.fixture
def operator_account(alone: None, namespace: Kube, tmp_path: Path) -> Iterator[Account]:
    """Without any right yet."""
    with account(namespace, tmp_path, everywhere=False) as made:
        yield made


def end_of(operator: OperatorProcess, within: float) -> str:
    """What it said last. It must end by itself, and not with 0."""
    eventually(lambda: operator.process.poll() is not None, within, 0.2, what="the operator's end")
    assert operator.process.returncode == 1, operator.text()
    assert "Traceback" not in operator.text()
    return operator.text().splitlines()[-1]


@pytest.mark.parametrize("everywhere", [True, False], ids=["cluster", "namespace"])
def test_a_right_that_is_missing_at_the_start(
    everywhere: bool, alone: None, namespace: Kube, rules: Rules, tmp_path: Path
) -> None:
    watched = "" if everywhere else namespace.namespace
    with account(namespace, tmp_path, everywhere=everywhere) as operators:
        operators.may(without(without(rules, "patch", "statefulsets"), "watch", "pods"))
        with operator_process(operators.kubeconfig, tmp_path, watched) as operator:
            told = end_of(operator, 30)
    assert "patch statefulsets.apps" in told
    assert "watch pods" in told
    assert told.count(f"in {watched or 'all namespaces'}") == 2
    assert "helm upgrade" in told


IMAGE = {"spec": {"serving": {"image": "docker.io/diffcache/NOTHING:1"}}}
"""A change that has to reach the StatefulSet, of a cache without pods."""


def test_a_write_that_is_forbidden_while_it_runs(operator_account: Account, rules: Rules, tmp_path: Path) -> None:
    """The condition says it, then the operator ends: its restarts are what alerts look at."""
    inside = operator_account.inside
    operator_account.may(rules)
    with operator_process(operator_account.kubeconfig, tmp_path, inside.namespace) as operator:
        inside.apply(cache("idle", serving={"replicas": 0}))
        inside.wait_reason("idle", "ScaledToZero")
        operator_account.may(without(rules, "patch", "statefulsets"))
        inside.patch("diffusioncache", "idle", IMAGE)
        message = inside.wait_reason("idle", "Forbidden", within=30)
        assert "patch statefulsets in" in message
        assert "helm upgrade" in message
        assert f"patch statefulsets.apps in {inside.namespace}" in end_of(operator, 20)
    operator_account.may(rules)
    with operator_process(operator_account.kubeconfig, tmp_path, inside.namespace) as operator:
        inside.wait_reason("idle", "ScaledToZero")
    assert operator.process.returncode == 0, operator.text()  # told to end, with the resource in its queue
    template = inside.get("statefulset", "idle")["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "docker.io/diffcache/NOTHING:1"


@pytest.mark.parametrize(
    ("verb", "resource"), [("get", "diffusioncaches"), ("update", "diffusioncaches/status"), ("list", "pods")]
)
def test_what_cannot_become_a_condition_ends_the_operator(
    verb: str, resource: str, operator_account: Account, rules: Rules, tmp_path: Path
) -> None:
    inside = operator_account.inside
    operator_account.may(rules)
    with operator_process(operator_account.kubeconfig, tmp_path, inside.namespace) as operator:
        inside.apply(cache("idle", serving={"replicas": 0}))
        inside.wait_reason("idle", "ScaledToZero")
        operator_account.may(without(rules, verb, resource))
        inside.patch("diffusioncache", "idle", IMAGE)
        assert f"{verb} {resource.replace('caches', 'caches.diffcache.io')} in" in end_of(operator, 20)


def test_a_watch_that_is_forbidden_while_it_runs(operator_account: Account, rules: Rules, tmp_path: Path) -> None:
    """Nothing is refused as long as the watch lasts, and kopf asks for minutes to have it back."""
    inside = operator_account.inside
    operator_account.may(rules)
    with (
        api_proxy(operator_account.kubeconfig) as proxy,
        operator_process(proxy.kubeconfig(tmp_path), tmp_path, inside.namespace) as operator,
    ):
        inside.apply(cache("idle", serving={"replicas": 0}))
        inside.wait_reason("idle", "ScaledToZero")
        operator_account.may(without(rules, "watch", "diffusioncaches"))
        assert proxy.cut_watches() >= 7
        assert "watch diffusioncaches.diffcache.io in" in end_of(operator, 75)


def test_a_quota_does_not_end_the_operator(operator_account: Account, rules: Rules, tmp_path: Path) -> None:
    """It forbids with the same status as a missing right."""
    inside = operator_account.inside
    operator_account.may(rules)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    inside.apply(quota | {"spec": {"hard": {"count/services": "0"}}})
    eventually(lambda: inside.get("resourcequota", "none")["status"].get("hard"))
    with operator_process(operator_account.kubeconfig, tmp_path, inside.namespace) as operator:
        inside.apply(cache("idle", serving={"replicas": 0}))
        assert "exceeded quota: none" in inside.wait_reason("idle", "Forbidden")
        inside("delete", "resourcequota", "none")
        inside.wait_reason("idle", "ScaledToZero")
        assert operator.process.poll() is None


@pytest.mark.parametrize("everywhere", [True, False], ids=["cluster", "namespace"])
def test_no_secret_can_be_read_and_nothing_deleted(
    everywhere: bool, operator: Kube, namespace: Kube, rules: Rules, tmp_path: Path
) -> None:
    with account(namespace, tmp_path, everywhere=everywhere) as operators:
        operators.may(rules)
        asked = [(verb, "secrets") for verb in ("get", "list", "watch", "create", "update", "patch", "delete")]
        asked += [("delete", right.resource) for right in REQUIRED]  # its own Leases, and those by name only
        who = f"--as=system:serviceaccount:{namespace.namespace}:operator"
        assert namespace("auth", "can-i", "list", "pods", who).strip() == "yes"
        for verb, resource in set(asked):
            assert namespace.refused("auth", "can-i", verb, resource, who).strip() == "no"
        who = f"--as=system:serviceaccount:{SYSTEM}:{RELEASE}"
        assert operator("auth", "can-i", "list", "pods", who).strip() == "yes"
        assert operator.refused("auth", "can-i", "get", "secrets", who).strip() == "no"
