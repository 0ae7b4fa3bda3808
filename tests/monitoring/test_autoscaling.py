"""The examples for autoscalers, and the metrics API of the cluster's tests, against a real Prometheus."""

from __future__ import annotations

import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND
from tests.clients.test_clients import run
from tests.cluster import prometheus as in_the_cluster
from tests.cluster.metricsapi.server import METRICS, NoMetric, expression, serve
from tests.monitoring.conftest import Traffic
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.rules import ROOT, RULES, recorded, recordings_named
from tests.system.serverprocess import free_ports, wait_for

EXAMPLES = ROOT / "examples/autoscaling"
HPA, KEDA = (yaml.safe_load((EXAMPLES / name).read_text()) for name in ("hpa.yaml", "keda.yaml"))
API = "/apis/external.metrics.k8s.io/v1beta1"


@pytest.mark.parametrize("example", [HPA, KEDA], ids=["hpa", "keda"])
def test_an_example_scales_a_cache(example: dict[str, Any]) -> None:
    assert example["spec"]["scaleTargetRef"] == {"apiVersion": API_VERSION, "kind": KIND, "name": "emoji"}


def test_both_examples_follow_what_is_recorded() -> None:
    asked = {metric["external"]["metric"]["name"] for metric in HPA["spec"]["metrics"]}
    assert asked == METRICS.keys()
    assert set(METRICS.values()) <= recorded()
    queries = [trigger["metadata"]["query"] for trigger in KEDA["spec"]["triggers"]]
    assert {name for query in queries for name in recordings_named(query)} == set(METRICS.values())


def test_prometheus_adapter_calls_them_what_the_hpa_asks_for() -> None:
    (fence,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)
    (rule,) = yaml.safe_load(fence)["externalRules"]
    matcher = re.search(r'=~"(.*)"', rule["seriesQuery"])
    assert matcher is not None
    assert {name for name in recorded() if re.fullmatch(matcher[1], name)} == set(METRICS.values())
    template = rule["name"]["as"].replace("$1", r"\1")
    assert {re.sub(rule["name"]["matches"], template, series) for series in METRICS.values()} == METRICS.keys()


def test_a_query_names_the_cache_and_nothing_can_be_smuggled_in() -> None:
    query = expression("demo", "diffcache_busy_replicas", "cache=emoji")
    assert query == 'diffcache:busy_replicas:rate5m{namespace="demo", cache="emoji"}'
    assert expression("demo", "diffcache_busy_replicas", 'cache=x"} or up{a="').endswith(r'cache="x\"} or up{a=\""}')
    with pytest.raises(NoMetric, match="diffcache_backlog_seconds"):
        expression("demo", "cpu", "")


@contextmanager
def metrics_api(prometheus: str, folder: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    (port,) = free_ports(1)
    server = serve(prometheus, str(certificate), str(key), port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{port}", context
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.clients
def test_the_metrics_api_answers_as_its_type_has_it(prometheus: Prometheus, traffic: Traffic, tmp_path: Path) -> None:
    def recorded_now() -> bool:
        traffic.flows()
        return bool(prometheus.values('diffcache:backlog_seconds:sum{cache="emoji"}'))

    wait_for("the recorded backlog", recorded_now, 60)
    with metrics_api(prometheus.url, tmp_path) as (address, context):

        def ask(path: str) -> Any:
            with urllib.request.urlopen(address + path, context=context, timeout=30) as answer:
                return json.load(answer)

        assert {resource["name"] for resource in ask(API)["resources"]} == METRICS.keys()
        told = ask(f"{API}/namespaces/demo/diffcache_backlog_seconds?labelSelector=cache%3Demoji")
        (item,) = told["items"]
        assert (told["kind"], item["metricName"]) == ("ExternalMetricValueList", "diffcache_backlog_seconds")
        steps, seconds = 12, 0.02  # what Traffic says of a pod
        assert item["value"] == f"{steps * seconds * 1000:.0f}m"
        for path in (
            "/openapi/v2",
            f"{API}/namespaces/elsewhere/diffcache_backlog_seconds?labelSelector=cache%3Demoji",
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(path)
            assert refused.value.code == 404
            assert json.load(refused.value)["kind"] == "Status"


@pytest.mark.clients
def test_the_clusters_prometheus_has_a_config_without_complaints(tmp_path: Path) -> None:
    files = in_the_cluster.config("demo", ("emoji", "other"))["data"]
    assert files["rules.yaml"] == RULES.read_text()
    check_config(files["prometheus.yml"].replace("/etc/prometheus/rules.yaml", str(RULES)), tmp_path)


@pytest.mark.clients
def test_the_runbooks_scrape_config_gives_the_labels_that_the_rules_know(tmp_path: Path) -> None:
    (fence,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/runbook.md").read_text(), re.DOTALL)
    # Debian's promtool knows no kubernetes_sd; what it finds is left out, what is done with it is checked.
    check_config(fence.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []"), tmp_path)
    serving, operator = yaml.safe_load(fence)["scrape_configs"]
    given = {
        step["target_label"]: step["source_labels"] for step in serving["relabel_configs"] if "target_label" in step
    }
    meta = "__meta_kubernetes_pod_label_" + re.sub("[^a-z]", "_", CACHE_LABEL)
    assert given == {
        "namespace": ["__meta_kubernetes_namespace"],
        "pod": ["__meta_kubernetes_pod_name"],
        "cache": [meta],
    }
    assert operator["honor_labels"] is True


def check_config(text: str, folder: Path) -> None:
    path = folder / "prometheus.yml"
    path.write_text(text)
    ran = run("promtool", "check", "config", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
