"""A cache that several pods share, and what it stands on: a real S3 server in the test's namespace."""

from __future__ import annotations

from typing import Any

from tests.cluster.kube import JSON, Kube, cache
from tests.cluster.pods import pod, secret, service

S3_IMAGE, S3_PORT, BUCKET = "diffcache.test/s3:1.0.14", 7070, "states"
KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}
SMALL = {"resources": {"limits": {"cpu": "400m"}, "requests": {"cpu": "100m", "memory": "500Mi"}}}
"""A pod that few requests a second keep busy."""
ONE_THREAD = [{"name": "OMP_NUM_THREADS", "value": "1"}]


def start_s3(inside: Kube) -> None:
    """A folder below /data is a bucket."""
    server = pod(
        "s3",
        "/versitygw",
        "--port",
        f":{S3_PORT}",
        "posix",
        "/data",
        image=S3_IMAGE,
        env={"ROOT_ACCESS_KEY": KEY["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": KEY["AWS_SECRET_ACCESS_KEY"]},
        volumes={f"/data/{BUCKET}": {"emptyDir": {}}},
        readiness={"tcpSocket": {"port": S3_PORT}},
    )
    inside.apply(secret("s3", **KEY), server, service("s3", S3_PORT))
    inside("wait", "pod/s3", "--for=condition=Ready", "--timeout=60s")


def shared_cache(name: str = "emoji", replicas: int = 2, **spec: Any) -> JSON:
    """Its index and ledger are its own, its states lie in the bucket."""
    serving = {"replicas": replicas, "pod": {"env": ONE_THREAD}} | spec.pop("serving", {})
    store = {
        "type": "S3",
        "s3": {"bucket": BUCKET, "endpoint": f"http://s3:{S3_PORT}", "credentialsSecretRef": {"name": "s3"}},
        "volume": {"size": "1Gi"},
    }
    shared = {"store": store, "ledger": {"type": "Provisioned", "provisioned": {}}} | spec.pop("cache", {})
    index = {"type": "Standalone", "standalone": {"volume": {"size": "1Gi"}}}
    return cache(name, serving=serving, cache=shared, index=index, **spec)
