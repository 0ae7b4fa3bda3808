"""What the chart makes of its values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from diffcache.extras import how_to_install
from diffcache_core.names import MANAGER, OPERATOR_IMAGE
from diffcache_core.resource.manifest import parse_manifest
from diffcache_operator.desired.placement import PodDefaults
from diffcache_operator.settings import Settings
from tests.charts.helm import CHART, HELMS, JSON, ROOT, Chart, identity, of_kind

NAMESPACES = ("--set", "watchNamespaces={team-a,team-b}")
AIR_GAPPED = (
    "--set",
    "global.imageRegistry=mirror.example:5000/hub,imagePullSecrets[0].name=mirror,imagePullSecrets[1].name=other",
)
POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
MONITORED = ("--set", "metrics.podMonitor.enabled=true", "--api-versions", POD_MONITOR)
PROMETHEUS_RULE = "monitoring.coreos.com/v1/PrometheusRule"
EVERYTHING = (
    *("--values", str(Path(__file__).parent / "everything.yaml")),
    *("--api-versions", POD_MONITOR, "--api-versions", PROMETHEUS_RULE),
)
CASES = {
    "default": (),
    "namespaces": NAMESPACES,
    "air-gapped": AIR_GAPPED,
    "monitored": MONITORED,
    "everything": EVERYTHING,
}
cases = pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)


def pods(objects: list[JSON]) -> list[JSON]:
    """The specs of all pods."""
    return [one["spec"] for one in of_kind(objects, "Pod")] + [
        one["spec"]["template"]["spec"] for one in of_kind(objects, "Deployment")
    ]


def environment(objects: list[JSON]) -> dict[str, str]:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}


@pytest.mark.parametrize("helm", HELMS)
def test_lint(chart: Chart, helm: str) -> None:
    result = chart.run(helm, "lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout


@cases
def test_both_helms_render_the_same(chart: Chart, arguments: tuple[str, ...]) -> None:
    assert chart.render(*arguments, helm="helm3") == chart.render(*arguments, helm="helm4")


@cases
def test_pods_meet_the_restricted_profile_and_write_nowhere(chart: Chart, arguments: tuple[str, ...]) -> None:
    specs = pods(chart.render(*arguments))
    assert len(specs) == 2  # operator and test
    for spec in specs:
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert all(volume.keys() & {"emptyDir", "configMap", "projected"} for volume in spec["volumes"])
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_quota_that_asks_for_limits_admits_the_test(chart: Chart) -> None:
    """Its own pod, and the one of the cache that it makes; the operator's, where a limit of CPU is given."""
    (pod,) = of_kind(chart.render(), "Pod")
    (container,) = pod["spec"]["containers"]
    told = {one["name"]: one.get("value", "") for one in container["env"]}
    for resources in (container["resources"], json.loads(told["SERVING_RESOURCES"])):
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
    (deployment,) = of_kind(chart.render("--set", "resources.limits.cpu=1"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": 1, "memory": "512Mi"}


def test_the_tests_resources_are_values(chart: Chart) -> None:
    settings = "test.resources.limits.cpu=3,test.servingResources.limits.cpu=0.5,test.resources.requests=null"
    (pod,) = of_kind(chart.render("--set", settings), "Pod")
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": 3, "memory": "512Mi"}}
    told = {one["name"]: one.get("value", "") for one in container["env"]}
    assert json.loads(told["SERVING_RESOURCES"])["limits"]["cpu"] == "0.5"
    assert json.loads(told["SERVING_POD"]) == {"nodeSelector": {}, "tolerations": []}


def test_the_tests_cache_runs_where_the_test_does(chart: Chart) -> None:
    values = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text())
    (pod,) = of_kind(chart.render(*EVERYTHING), "Pod")
    (told,) = [one["value"] for one in pod["spec"]["containers"][0]["env"] if one["name"] == "SERVING_POD"]
    assert json.loads(told) == {"nodeSelector": values["nodeSelector"], "tolerations": values["tolerations"]}


def test_ids_may_be_the_clusters_to_assign(chart: Chart) -> None:
    """OpenShift admits no pod that names ids of its own choice."""
    objects = chart.render("--set", "fixedIds=false")
    for spec in pods(objects):
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert Settings.from_environment(environment(objects)).pods == PodDefaults(fixed_ids=False)


def test_one_operator_at_a_time(chart: Chart) -> None:
    (deployment,) = of_kind(chart.render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_what_the_operator_is_told(chart: Chart) -> None:
    told = environment(chart.render(*NAMESPACES, *AIR_GAPPED, "--set", "logLevel=debug,resyncSeconds=60"))
    assert Settings.from_environment(told) == Settings(
        namespaces=("team-a", "team-b"),
        serving_image="mirror.example:5000/hub/diffcache/serving:0.1.0",
        milvus_image="mirror.example:5000/hub/milvusdb/milvus:v2.3.5",
        redis_image="mirror.example:5000/hub/library/redis:7.0.15",
        pods=PodDefaults(pull_secrets=("mirror", "other")),
        resync_seconds=60,
        log_level="debug",
    )


def test_defaults_are_the_operators_own(chart: Chart) -> None:
    objects = chart.render()
    assert Settings.from_environment(environment(objects)) == Settings.from_environment({})
    assert {container["image"].split(":")[0] for spec in pods(objects) for container in spec["containers"]} == {
        OPERATOR_IMAGE,
        OPERATOR_IMAGE.replace("operator", "serving"),
    }


def test_one_value_redirects_all_images(chart: Chart) -> None:
    objects = chart.render(*AIR_GAPPED)
    text = json.dumps(objects)
    assert "docker.io" not in text
    for spec in pods(objects):
        assert spec["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}]
        assert all(one["image"].startswith("mirror.example:5000/hub/") for one in spec["containers"])


def test_a_digest_wins_over_the_tag(chart: Chart) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    objects = chart.render("--set", f"image.digest={digest},image.tag=x,servingImage.digest={digest}")
    assert {one["image"] for spec in pods(objects) for one in spec["containers"]} == {
        f"docker.io/diffcache/operator@{digest}",
        f"docker.io/diffcache/serving@{digest}",
    }


def test_everything_arrives(chart: Chart) -> None:
    values = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text())
    objects = chart.render(*EVERYTHING)
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    for key in ("priorityClassName", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        assert template["spec"][key] == values[key]
    assert template["spec"]["terminationGracePeriodSeconds"] == 3
    assert template["metadata"]["annotations"] == values["podAnnotations"]
    assert template["metadata"]["labels"].items() >= values["podLabels"].items()
    assert template["spec"]["containers"][0]["env"][-2:] == values["extraEnv"]
    assert template["spec"]["containers"][0]["resources"] == values["resources"]
    (account,) = [one for one in of_kind(objects, "ServiceAccount") if "helm.sh/hook" not in notes(one)]
    assert account["metadata"]["name"] == template["spec"]["serviceAccountName"] == "operator-account"
    assert notes(account) == values["serviceAccount"]["annotations"]


def notes(one: JSON) -> JSON:
    return one["metadata"].get("annotations", {})


def test_pod_labels_cannot_displace_those_selected_by(chart: Chart) -> None:
    (deployment,) = of_kind(chart.render("--set", r"podLabels.app\.kubernetes\.io/name=mine"), "Deployment")
    spec = deployment["spec"]
    assert spec["template"]["metadata"]["labels"].items() >= spec["selector"]["matchLabels"].items()


def test_pod_monitors_only_on_demand(chart: Chart) -> None:
    assert not of_kind(chart.render(), "PodMonitor")
    labels = ("--set", "metrics.podMonitor.additionalLabels.release=prometheus,metrics.podMonitor.interval=30s")
    operator, serving = of_kind(chart.render(*MONITORED, *labels), "PodMonitor")
    for monitor in (operator, serving):
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint.items() >= {"port": "metrics", "interval": "30s"}.items()
    assert serving["spec"]["namespaceSelector"] == {"any": True}
    _, serving = of_kind(chart.render(*MONITORED, *NAMESPACES), "PodMonitor")
    assert serving["spec"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}


def test_the_serving_pod_monitor_finds_the_operators_pods(chart: Chart) -> None:
    _, serving = of_kind(chart.render(*MONITORED), "PodMonitor")
    assert serving["spec"]["selector"]["matchLabels"]["app.kubernetes.io/managed-by"] == MANAGER


@pytest.mark.parametrize("name", ["x" * 53, "9" + "x" * 51 + "y", "diffcache", "a-diffcache-b"])
@pytest.mark.parametrize("arguments", [(), NAMESPACES])
def test_names_fit(chart: Chart, name: str, arguments: tuple[str, ...]) -> None:
    for one in chart.render(*arguments, *MONITORED, name=name, namespace="n" * 63):
        # A role's name is a path segment and may be longer; so may a CRD's.
        longest = 253 if one["apiVersion"].startswith("rbac") else 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", one["metadata"]["name"])
        assert len(one["metadata"]["name"]) <= longest
        assert all(len(value) <= 63 for value in one["metadata"].get("labels", {}).values())


def test_releases_of_one_name_in_two_namespaces_do_not_meet(chart: Chart) -> None:
    for first, second in [((), ()), (NAMESPACES, ()), (NAMESPACES, ("--set", "watchNamespaces={team-c,team-d}"))]:
        mine = {identity(one) for one in chart.render(*first, namespace="one")}
        theirs = {identity(one) for one in chart.render(*second, namespace="two")}
        assert {kind for kind, _, _ in mine & theirs} == {"CustomResourceDefinition"}


def test_the_crd_is_the_generated_one_and_stays(chart: Chart) -> None:
    (crd,) = of_kind(
        chart.render("--set", r"crds.annotations.mine=x,crds.annotations.helm\.sh/resource-policy=drop"),
        "CustomResourceDefinition",
    )
    generated = yaml.safe_load((ROOT / "crds/diffusioncaches.diffcache.io.yaml").read_text())
    assert crd["spec"] == generated["spec"]
    assert notes(crd)["helm.sh/resource-policy"] == "keep"
    assert notes(crd)["mine"] == "x"
    # Nothing that names a release or a version: another release adopts it as it is.
    assert crd["metadata"]["labels"] == {"app.kubernetes.io/part-of": "diffcache"}
    assert not of_kind(chart.render("--set", "crds.install=false"), "CustomResourceDefinition")


def test_helm_test_lies_in_a_watched_namespace(chart: Chart) -> None:
    for arguments, namespace in (((), "system"), (NAMESPACES, "team-a")):
        hooks = [one for one in chart.render(*arguments) if notes(one).get("helm.sh/hook") == "test"]
        assert {one["kind"] for one in hooks} == {"ConfigMap", "Pod", "Role", "RoleBinding", "ServiceAccount"}
        assert {one["metadata"]["namespace"] for one in hooks} == {namespace}
        policies = {notes(one)["helm.sh/hook-delete-policy"] for one in hooks}  # an uninstall leaves hooks behind
        assert policies == {"before-hook-creation,hook-succeeded,hook-failed"}


def test_the_hints_after_the_installation_hold(chart: Chart) -> None:
    arguments = ("--dry-run=client", "--namespace", "system", *NAMESPACES)
    shown = chart.run("helm4", "install", "diffcache", str(CHART), *arguments).stdout
    hints = shown[shown.index("NOTES:") :]
    assert "kubectl wait -n team-a" in hints
    manifest = re.search(r"<<'END'\n(.*?)\n  END", hints, re.DOTALL)
    assert manifest
    parse_manifest(manifest[1])
    for words in (hints, (ROOT / "README.md").read_text()):
        assert how_to_install() in " ".join(words.split())


def test_two_versions_are_one(chart: Chart) -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    facts = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert re.search(r'^version = "(.+)"', pyproject, re.MULTILINE)[1] == facts["appVersion"]  # type: ignore[index]
    named = {one["image"] for one in yaml.safe_load(facts["annotations"]["artifacthub.io/images"])}
    told = environment(chart.render())
    used = {one["image"] for spec in pods(chart.render()) for one in spec["containers"]}
    assert named == used | {told[f"DIFFCACHE_{kind}_IMAGE"] for kind in ("SERVING", "MILVUS", "REDIS")}
