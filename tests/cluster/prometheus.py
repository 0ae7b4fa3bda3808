"""A real Prometheus in a test's namespace, with the chart's rules: it scrapes the serving pods and the operator.

Debian's build knows no kubernetes_sd: pods are found by the SRV records of a headless Service, which hold their names.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from diffcache_core.names import METRICS_PORT
from tests.cluster.conftest import RELEASE, SYSTEM
from tests.cluster.kube import JSON, ROOT, Kube
from tests.cluster.pods import USER, pod, service

IMAGE = "docker.io/prom/prometheus:v2.42.0"
NAME, PORT = "prometheus", 9090
RULES = ROOT / "charts/diffcache/files/rules.yaml"
SCRAPE_SECONDS = 2
"""Production's 15 to 60 would make each test wait that long for a figure."""


def url(inside: Kube) -> str:
    """For `spec.prometheus.url`: the operator asks from another namespace."""
    return f"http://{NAME}.{inside.namespace}.svc:{PORT}"


def start(inside: Kube, *caches: str) -> None:
    """Returns when it answers. `caches`: names, `emoji` unless told. After `kill` it begins without any data."""
    inside.apply(config(inside.namespace, caches or ("emoji",)), service(NAME, PORT), _pod())
    inside("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s")


def kill(inside: Kube) -> None:
    """Pod and data are gone; its Service leads nowhere."""
    inside("delete", "pod", NAME, "--grace-period=1")


def query(inside: Kube, expression: str) -> list[JSON]:
    """The samples of an instant query; through the API server, so from wherever the test runs."""
    service_path = f"/api/v1/namespaces/{inside.namespace}/services/{NAME}:{PORT}/proxy"
    answer = json.loads(inside("get", "--raw", f"{service_path}/api/v1/query?query={quote(expression)}"))
    found: list[JSON] = answer["data"]["result"]
    return found


def value(inside: Kube, expression: str) -> float:
    """Of an expression with one sample. Raises IndexError while there is none, which `eventually` waits for."""
    return float(query(inside, expression)[0]["value"][1])


def config(namespace: str, caches: tuple[str, ...]) -> JSON:
    """The labels are those that docs/runbook.md asks for. Pods are found while they are ready."""
    serving = {
        "job_name": "diffcache-serving",
        "dns_sd_configs": [
            {
                "names": [f"_grpc._tcp.{cache}-pods" for cache in caches],  # NAME-0.NAME-pods.NAMESPACE...:50051
                "type": "SRV",
                "refresh_interval": f"{SCRAPE_SECONDS}s",
            }
        ],
        "relabel_configs": [
            {"source_labels": ["__address__"], "regex": r"([^.]+)\..*", "target_label": "pod"},
            {"source_labels": ["pod"], "regex": "(.+)-[0-9]+", "target_label": "cache"},
            {"replacement": namespace, "target_label": "namespace"},
            {
                "source_labels": ["__address__"],
                "regex": "(.+):[0-9]+",
                "replacement": f"$1:{METRICS_PORT}",
                "target_label": "__address__",
            },
        ],
    }
    operator = {
        "job_name": "diffcache-operator",
        "honor_labels": True,
        "static_configs": [{"targets": [f"{RELEASE}-metrics.{SYSTEM}.svc:8081"]}],
    }
    often = f"{SCRAPE_SECONDS}s"
    settings = {
        "global": {"scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often},
        "rule_files": ["/etc/prometheus/rules.yaml"],
        "scrape_configs": [serving, operator],
    }
    files = {"prometheus.yml": json.dumps(settings), "rules.yaml": RULES.read_text()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": files}


def _pod() -> JSON:
    made = pod(
        NAME,
        "/bin/prometheus",
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/prometheus",
        image=IMAGE,
        volumes={"/etc/prometheus": {"configMap": {"name": NAME}}, "/prometheus": {"emptyDir": {}}},
        readiness={"httpGet": {"path": "/-/ready", "port": PORT}},
    )
    (container,) = made["spec"]["containers"]
    container["securityContext"] |= {"readOnlyRootFilesystem": True, "runAsUser": USER}
    container["resources"] = {"requests": {"cpu": "50m", "memory": "100Mi"}}
    return made
