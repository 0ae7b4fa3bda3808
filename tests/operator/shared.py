"""Caches that replicas share: with everything beside the pods, and with what others run."""

from __future__ import annotations

from tests.operator.resources import cache

SHARED = cache(
    "shared",
    serving={"replicas": 2},
    cache={
        "store": {"type": "S3", "s3": {"bucket": "states", "endpoint": "http://minio:9000"}},
        "ledger": {"type": "Provisioned", "provisioned": {"volume": {"storageClassName": "fast"}}},
    },
    index={"type": "Standalone", "standalone": {}},
)
RENTED = cache(
    "rented",
    serving={"pod": {"env": [{"name": "AWS_SESSION_TOKEN", "value": "mine"}]}},
    cache={
        "store": {
            "type": "S3",
            "s3": {
                "bucket": "states",
                "prefix": "a/b",
                "endpoint": "https://minio:9000",
                "credentialsSecretRef": {"name": "s3"},
                "caSecretRef": {"name": "s3", "key": "ca.crt"},
            },
        },
        "ledger": {
            "type": "External",
            "external": {
                "address": "rediss://redis:6380/1",
                "passwordSecretRef": {"name": "redis", "key": "password"},
                "caSecretRef": {"name": "redis", "key": "ca.crt"},
            },
        },
    },
    index={"type": "External", "external": {"uri": "http://milvus:19530"}},
    prometheus={"url": "http://mimir/prometheus"},
    tuning={"mode": "Auto", "latency": {"p95Milliseconds": 4000}, "capacity": {"min": "32Mi", "max": "1Gi"}},
    autoscaling={"mode": "Operator", "maxReplicas": 4},
)
