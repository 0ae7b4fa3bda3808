"""The metrics API in a cluster, for as long as a test needs it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.cluster import prometheus
from tests.cluster.kube import JSON, Kube
from tests.cluster.metricsapi.server import GROUP, VERSION
from tests.cluster.pods import pod, secret, service

NAME, PORT = "metrics-api", 6443
API_SERVICE = f"{VERSION}.{GROUP}"
OURS = "diffcache.io/test"
"""Label of the APIService: what a killed run has left is known by it."""


@contextmanager
def metrics_api(inside: Kube) -> Iterator[None]:
    """external.metrics.k8s.io, answered by a pod in the test's namespace out of the Prometheus there.

    There is one such API to a cluster. Its registration goes first: while the backend of one is gone, no namespace
    can be deleted.
    """
    remove(inside)
    authority = trustme.CA()
    _start(inside, authority)
    inside.apply(_api_service(inside.namespace, authority.cert_pem.bytes()))
    try:
        inside("wait", f"apiservice/{API_SERVICE}", "--for=condition=Available", "--timeout=60s")
        yield
    finally:
        remove(inside)


def remove(inside: Kube) -> None:
    """The registration, if it is one of ours; somebody else's is not touched, and the test cannot run."""
    inside("delete", "apiservice", "-l", OURS, "--ignore-not-found")
    assert not inside.exists("apiservice", API_SERVICE), f"this cluster has an {API_SERVICE} of its own"


def _api_service(namespace: str, ca: bytes) -> JSON:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API_SERVICE, "labels": {OURS: NAME}},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "service": {"namespace": namespace, "name": NAME, "port": PORT},
            "caBundle": base64.b64encode(ca).decode(),
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }


def _start(inside: Kube, authority: trustme.CA) -> None:
    issued = authority.issue_cert(f"{NAME}.{inside.namespace}.svc")
    chain = "".join(part.bytes().decode() for part in issued.cert_chain_pems)
    program = Path(__file__).with_name("server.py").read_text()
    inside.apply(
        secret(NAME, **{"tls.crt": chain, "tls.key": issued.private_key_pem.bytes().decode()}),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"server.py": program}},
        service(NAME, PORT),
        pod(
            NAME,
            *("python", "/program/server.py", prometheus.url(inside), "/tls/tls.crt", "/tls/tls.key", str(PORT)),
            volumes={"/program": {"configMap": {"name": NAME}}, "/tls": {"secret": {"secretName": NAME}}},
            readiness={"httpGet": {"path": "/healthz", "port": PORT, "scheme": "HTTPS"}},
        ),
    )
    inside("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s")
