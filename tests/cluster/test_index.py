"""Caches with a real Milvus: one of their own, and one that somebody else runs."""

from __future__ import annotations

import pytest
import trustme

from diffcache_core.names import CACHE_LABEL, MILVUS_IMAGE
from tests.cluster.kube import JSON, Kube, cache, eventually
from tests.cluster.pods import USER, draw, in_client, pod, secret, service, serving_pod, start_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

APPLE, SIMILAR, LIKE_BOTH = "red apple, noto style", "red apple, flat style", "green apple, noto style"
EXTERNAL, TOKEN = "https://milvus:19530", "root:Milvus"
OWN = {"type": "Standalone", "standalone": {"volume": {"size": "1Gi"}}}

ROWS = """
import os, sys
from pymilvus import MilvusClient
options = {"server_pem_path": sys.argv[2], "token": sys.argv[3]} if len(sys.argv) > 2 else {}
client = MilvusClient(sys.argv[1], timeout=10, **options)
for name in client.list_collections():
    client.load_collection(name)
    rows = client.query(name, filter='entry_id != ""', output_fields=["entry_id"], consistency_level="Strong")
    print(name, len(rows))
"""


def restart(inside: Kube) -> None:
    """Replaces the serving pod: its last rows are written when it ends, and found by the next one when it starts."""
    old = inside.get("pod", "emoji-0")["metadata"]["uid"]
    inside("delete", "pod", "emoji-0")
    serving_pod(inside, other_than=old)


def test_a_milvus_of_its_own(operator: Kube, namespace: Kube) -> None:
    namespace("label", "namespace", namespace.namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    namespace.apply(cache(index=OWN))
    start_client(namespace)
    namespace.wait_ready("emoji")
    namespace.wait_reason("emoji", "Up", "IndexReady")
    assert "Read-only file system" in namespace.refused("exec", "emoji-milvus-0", "--", "touch", "/milvus/x")
    assert namespace("exec", "emoji-milvus-0", "--", "stat", "-c", "%u", "/var/lib/milvus/etcd").split() == [str(USER)]

    assert draw(namespace, APPLE, SIMILAR) == ["MISS", "APPROXIMATE"]
    restart(namespace)
    assert rows(namespace) == 2
    assert draw(namespace, LIKE_BOTH) == ["APPROXIMATE"]

    milvus_is_killed(namespace)

    namespace("scale", "diffusioncache", "emoji", "--replicas=0")
    namespace.wait_reason("emoji", "ScaledToZero")
    eventually(lambda: not namespace.list("pod", CACHE_LABEL), 90, what="both pods gone")
    assert len(namespace.list("persistentvolumeclaim", CACHE_LABEL)) == 2
    namespace("scale", "diffusioncache", "emoji", "--replicas=1")
    namespace.wait_ready("emoji")
    namespace.wait_reason("emoji", "Up", "IndexReady")
    assert rows(namespace) >= 2
    assert draw(namespace, APPLE) == ["APPROXIMATE"]

    namespace("delete", "diffusioncache", "emoji")
    kinds = "statefulset,service,pod,persistentvolumeclaim"
    eventually(lambda: not namespace.list(kinds, CACHE_LABEL), 90, what="nothing left of it")


def milvus_is_killed(inside: Kube) -> None:
    """And for a while the cluster does not let it come back."""
    before = serving_pod(inside)
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
    inside.apply({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    eventually(lambda: inside.get("resourcequota", "full")["status"]["hard"])
    inside("delete", "pod", "emoji-milvus-0", "--grace-period=1")
    assert draw(inside, APPLE) == ["MISS"]

    assert "exceeded quota" in inside.wait_reason("emoji", "PodRefused", "IndexReady")
    ready = inside.condition("emoji", "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("True", "ServingWithoutIndex")

    inside("delete", "resourcequota", "full")
    inside("annotate", "statefulset", "emoji-milvus", "test=again")  # its controller waits longer with each failure
    inside.wait_reason("emoji", "Up", "IndexReady")
    inside.wait_reason("emoji", "Serving")
    assert draw(inside, SIMILAR) == ["APPROXIMATE"]
    after = serving_pod(inside)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def rows(inside: Kube) -> int:
    """In the one collection that the cache's own Milvus has."""
    name, count = in_client(inside, ROWS, "http://emoji-milvus:19530")
    assert name.startswith("diffcache_emoji_")
    return int(count)


def test_a_pod_does_not_wait_for_its_milvus(operator: Kube, namespace: Kube) -> None:
    """The cache is not Ready before Milvus was there once. One with a wrong image is replaced by one with the right."""
    namespace.apply(cache(index={"type": "Standalone", "standalone": {"image": "diffcache.test/none:1"}}))
    start_client(namespace)
    namespace.wait_reason("emoji", "IndexNotReached")
    uid = serving_pod(namespace)["metadata"]["uid"]
    told = namespace.wait_reason("emoji", "ImagePullFailed", "IndexReady")
    assert "Milvus does not come up" in told
    assert "diffcache.test/none:1" in told
    assert draw(namespace, APPLE) == ["MISS"]
    namespace.patch("diffusioncache", "emoji", {"spec": {"index": {"standalone": {"image": MILVUS_IMAGE}}}})
    namespace.wait_reason("emoji", "Up", "IndexReady")
    assert serving_pod(namespace)["metadata"]["uid"] == uid


def test_a_milvus_of_somebody_else(operator: Kube, namespace: Kube) -> None:
    """Over TLS, with a token. One cache has a wrong one at first, for another the Secret is not there yet."""
    authority = trustme.CA()
    start_milvus(namespace, authority)
    namespace.apply(
        secret("milvus-ca", **{"ca.pem": authority.cert_pem.bytes().decode()}),
        secret("wrong-token", token="root:wrong"),
        cache(index=external(token="wrong-token")),
        cache("early", index=external(token="late-token")),
    )
    start_client(namespace)
    namespace.wait_reason("emoji", "IndexNotReached")
    told = namespace.wait_reason("emoji", "Down", "IndexReady")
    assert "https://milvus:19530" in told
    assert "token" in told
    assert draw(namespace, APPLE) == ["MISS"]
    assert "late-token" in namespace.wait_reason("early", "ReferenceNotFound")

    namespace.apply(secret("wrong-token", token=TOKEN), secret("late-token", token=TOKEN))
    namespace("annotate", "pod", "emoji-0", "test=now")  # else the kubelet would look at the Secret in about a minute
    namespace.wait_reason("emoji", "Up", "IndexReady")
    namespace.wait_reason("emoji", "Serving")
    namespace.wait_reason("early", "Serving")
    restart(namespace)
    assert draw(namespace, SIMILAR) == ["APPROXIMATE"]
    found = namespace("exec", "emoji-0", "--", "python", "-c", ROWS, EXTERNAL, "/etc/diffcache-secrets/index-ca", TOKEN)
    counts = dict(line.split() for line in found.splitlines())
    assert [counts[name] for name in counts if name.startswith("diffcache_emoji_")] == ["1"]
    assert len(counts) == 2  # and one of the other cache


def external(token: str) -> JSON:
    references = {
        "tokenSecretRef": {"name": token, "key": "token"},
        "caSecretRef": {"name": "milvus-ca", "key": "ca.pem"},
    }
    return {"type": "External", "external": {"uri": EXTERNAL, **references}}


def start_milvus(inside: Kube, authority: trustme.CA) -> None:
    """Not ours: a plain pod with the name `milvus` that wants TLS and TOKEN, which is its default."""
    issued = authority.issue_cert("milvus")
    chain = "".join(part.bytes().decode() for part in issued.cert_chain_pems)
    volumes: dict[str, JSON] = {
        "/tls": {"secret": {"secretName": "milvus-tls"}},
        "/var/lib/milvus": {"emptyDir": {}},
    }
    env = {
        "ETCD_USE_EMBED": "true",
        "ETCD_DATA_DIR": "/var/lib/milvus/etcd",
        "COMMON_STORAGETYPE": "local",
        "COMMON_SECURITY_AUTHORIZATIONENABLED": "true",
        "COMMON_SECURITY_TLSMODE": "1",
        "TLS_SERVERPEMPATH": "/tls/server.pem",
        "TLS_SERVERKEYPATH": "/tls/server.key",
    }
    healthy = {"httpGet": {"path": "/healthz", "port": 9091}}
    inside.apply(
        secret("milvus-tls", **{"server.pem": chain, "server.key": issued.private_key_pem.bytes().decode()}),
        service("milvus", 19530),
        pod(
            "milvus",
            *("milvus", "run", "standalone"),
            image=MILVUS_IMAGE,
            env=env,
            volumes=volumes,
            readiness=healthy,
        ),
    )
