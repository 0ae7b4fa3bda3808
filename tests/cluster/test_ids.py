"""Pods that run as whom a cluster assigns, as OpenShift's do: some user that no image knows, in group 0."""

from __future__ import annotations

import pytest

from tests.cluster.kube import Kube, cache
from tests.cluster.pods import draw, start_client
from tests.cluster.test_index import APPLE, OWN, SIMILAR

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

USER = 1000650000
IDS = {"runAsUser": USER, "runAsGroup": 0, "fsGroup": USER}
REDIS = {"type": "Provisioned", "provisioned": {}}


def test_serving_pod_redis_and_milvus(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache(serving={"pod": {"securityContext": IDS}}, index=OWN, cache={"ledger": REDIS}))
    start_client(namespace)
    namespace.wait_ready("emoji")
    namespace.wait_reason("emoji", "Up", "IndexReady")
    namespace.wait_reason("emoji", "Up", "LedgerReady")
    assert draw(namespace, APPLE, SIMILAR) == ["MISS", "APPROXIMATE"]
    for pod in ("emoji-0", "emoji-redis-0", "emoji-milvus-0"):
        assert namespace("exec", pod, "--", "id", "-u").split() == [str(USER)]
