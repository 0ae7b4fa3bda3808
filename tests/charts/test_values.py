"""Values that cannot be right are refused, and the refusal says where and what."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.helm import CHART, HELMS, ROOT, Chart

DIGEST = "sha256:" + "0" * 63  # one short
REFUSED = [
    ("watchNamespace=a", "watchNamespace"),
    ("watchNamespaces=a", "watchNamespaces array"),
    ("watchNamespaces={Team_A}", "watchNamespaces 0 pattern"),
    ("watchNamespaces={a,a}", "watchNamespaces 0 1"),
    ("global.imageRegistry=https://mirror.example", "global imageRegistry pattern"),
    ("image.repo=x", "image repo"),
    ("image.repository=Mine", "image repository pattern"),
    (f"image.digest={DIGEST}", "image digest pattern"),
    ("image.pullPolicy=Sometimes", "image pullPolicy Always IfNotPresent Never"),
    ("servingImage.tag=7", "servingImage tag string"),
    ("servingImage.pullPolicy=Always", "servingImage pullPolicy"),
    ("milvusImage.tag=", "milvusImage tag"),
    ("redisImage.tag=", "redisImage tag"),
    ("imagePullSecrets={mirror}", "imagePullSecrets 0 object"),
    ("fixedIds=no", "fixedIds boolean"),
    ("crds.keep=false", "crds keep"),
    ("crds.install=yes", "crds install boolean"),
    ("rbac.create=1", "rbac create boolean"),
    ("serviceAccount.annotations.a=true", "serviceAccount annotations a string"),
    ("logLevel=verbose", "logLevel debug info warning error"),
    ("resyncSeconds=5", "resyncSeconds 10"),
    ("resyncSeconds=10m", "resyncSeconds integer"),
    ("resources.memory=1Gi", "resources memory"),
    ("podLabels.a=1", "podLabels a string"),
    ("tolerations[0].effects=NoSchedule", "tolerations 0 effects"),
    ("affinity.nodeAffinities.x=1", "affinity nodeAffinities"),
    ("topologySpreadConstraints[0].maxSkew=1", "topologySpreadConstraints 0 topologyKey"),
    ("extraEnv[0].value=x", "extraEnv 0 name"),
    ("extraEnv[0].name=DIFFCACHE_LOG_LEVEL", "extraEnv DIFFCACHE_LOG_LEVEL use its values"),
    ("extraEnv[0].name=A,extraEnv[1].name=A,extraEnv[1].value=x", "extraEnv A twice"),
    ("metrics.podMonitor.interval=30", "metrics podMonitor interval string"),
    ("metrics.podMonitor.enabled=true", "metrics.podMonitor.enabled PodMonitor install CRDs --api-versions"),
    ("metrics.serviceMonitor.enabled=true", "metrics serviceMonitor"),
    ("monitoring.runbookUrl=a#b", "monitoring runbookUrl pattern"),
    ("monitoring.rules.labels.a=1", "monitoring rules labels a string"),
    ("monitoring.dashboards.enable=true", "monitoring dashboards enable"),
    ("monitoring.prometheusRule.enabled=true", "monitoring.prometheusRule.enabled PrometheusRule CRDs --api-versions"),
    ("prometheus.url=prometheus:9090", "prometheus url pattern"),
    ("prometheus.url=http://me:secret@prometheus:9090", "prometheus url pattern"),
    ("prometheus.allowedUrls[0]=http://prometheus?", "prometheus allowedUrls 0 pattern"),
    ("prometheus.tokenSecret.name=A_B", "prometheus tokenSecret name pattern"),
    ("prometheus.tokenSecret.name=token", "prometheus.tokenSecret prometheus.url set it"),
    ("prometheus.headersSecret.name=headers", "prometheus.tokenSecret headersSecret prometheus.url set it"),
    ("prometheus.headers[0].name=authorization,prometheus.headers[0].value=x", "prometheus headers 0 name"),
    ("prometheus.headers[0].name=Host,prometheus.headers[0].value=x", "prometheus headers 0 name"),
    ("test.timeoutSeconds=0", "test timeoutSeconds 10"),
    ("test.resources.cpu=1", "test resources cpu"),
    ("test.servingResources.limits.cpu=true", "test servingResources limits cpu"),
]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(("setting", "words"), REFUSED, ids=[setting for setting, _ in REFUSED])
def test_refused(chart: Chart, helm: str, setting: str, words: str) -> None:
    message = chart.refusal("--set", setting, helm=helm)
    assert [word for word in words.split() if word not in message] == [], message


@pytest.mark.parametrize("helm", HELMS)
def test_old_clusters_are_refused(chart: Chart, helm: str) -> None:
    assert ">=1.29.0-0" in chart.refusal("--kube-version", "1.28.9", helm=helm)
    for version in ("1.29.0", "1.30.2-gke.1587003", "v1.37.2"):
        chart.render("--kube-version", version, helm=helm)


def test_a_parent_chart_may_have_its_own_globals_and_a_condition(chart: Chart) -> None:
    chart.render("--set", "enabled=true,global.theirs=1")


OWN = ("labels", "resources", "servingResources")
"""Maps in which null takes an item away."""


def at_depth(values: dict[str, Any], depth: int, replaced: Any) -> dict[str, Any]:
    """The same keys, and `replaced` for each value at this depth."""
    if depth == 0:
        return dict.fromkeys(values, replaced)
    inner = {key: value for key, value in values.items() if isinstance(value, dict) and value and key not in OWN}
    return {key: at_depth(value, depth - 1, replaced) for key, value in inner.items()}


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that has this one as a dependency."""
    folder = tmp_path_factory.mktemp("parent")
    dependency = {"name": "diffcache", "version": yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]}
    facts = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(facts))
    shutil.copytree(CHART, folder / "charts/diffcache")
    return folder


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("depth", range(3))
def test_a_value_left_empty_is_its_default(chart: Chart, parent: Path, tmp_path: Path, helm: str, depth: int) -> None:
    """Every key of values.yaml, be it a block or a single value, in this chart and in one that has it inside."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    empty = at_depth(defaults, depth, None)
    for folder, values in ((CHART, empty), (parent, {"diffcache": empty, "global": empty.get("global")})):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        plain = chart.run(helm, "template", "diffcache", str(folder))
        result = chart.run(
            helm, "template", "diffcache", str(folder), "--values", str(path), "--description", str(depth)
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout == plain.stdout
        assert "kind: Deployment" in result.stdout


@pytest.mark.parametrize("helm", HELMS)
def test_an_item_left_empty_in_labels_or_resources_is_taken_away(chart: Chart, helm: str) -> None:
    settings = "resources.limits=null,monitoring.rules.enabled=true,monitoring.rules.labels.prometheus_rule=null"
    objects = chart.render("--set", settings, helm=helm)
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "50m", "memory": "128Mi"}}
    (rules,) = [one for one in objects if one["metadata"]["name"] == "diffcache-rules"]
    assert "prometheus_rule" not in rules["metadata"]["labels"]


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("depth", range(3))
def test_a_value_of_another_type_is_refused_by_name(chart: Chart, tmp_path: Path, helm: str, depth: int) -> None:
    """Every key of values.yaml at once: a list of a number is right for none of them."""
    path = tmp_path / "values.yaml"
    wrong = at_depth(yaml.safe_load((CHART / "values.yaml").read_text()), depth, [5])
    path.write_text(yaml.safe_dump(wrong))
    told = chart.refusal("--values", str(path), helm=helm)
    for name in paths(wrong):
        assert f"{name}:" in told or f"{name}.0:" in told or f"'/{name.replace('.', '/')}" in told, name


def paths(values: Any, path: str = "") -> list[str]:
    if not isinstance(values, dict):
        return [path]
    return [found for key, value in values.items() for found in paths(value, f"{path}.{key}".strip("."))]


def test_every_value_has_a_text() -> None:
    text = (CHART / "values.yaml").read_text()
    described = {key for key, _ in readme().descriptions(text)}

    def missing(values: Any, path: str = "") -> list[str]:
        if path in described:
            return []
        if isinstance(values, dict) and values:
            return [key for name, value in values.items() for key in missing(value, f"{path}.{name}".strip("."))]
        return [path]

    assert missing(yaml.safe_load(text)) == []


def test_the_readme_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == readme().chart_readme()


def readme() -> Any:
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "tools/chart_readme.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
