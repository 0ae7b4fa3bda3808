"""Good and bad resources: the manifest's parser and a real API server are held to the same rows."""

from __future__ import annotations

from typing import Any, NamedTuple

Spec = dict[str, Any]
BASE: Spec = {"model": {"source": "bundled://emoji"}}
EXTERNAL = {"uri": "https://milvus:19530"}


class Row(NamedTuple):
    """A spec laid over BASE, or a name; and the words of the refusal, none if it is good."""

    id: str
    spec: Spec
    words: tuple[str, ...] = ()
    name: str = "a"


def _model(**model: Any) -> Spec:
    return {"model": {"source": "bundled://emoji"} | model}


def _index(**index: Any) -> Spec:
    return {"index": index}


def _pod(**pod: Any) -> Spec:
    return {"serving": {"pod": pod}}


HUB = "org/model"
GOOD = [
    Row("short", {}),
    Row("longest name", {}, name="a" * 40),
    Row("file", _model(source="file:///opt/model")),
    Row("claim", _model(source="pvc://models/sd/1.5")),
    Row("whole claim", _model(source="pvc://models")),
    Row("hub", _model(source=HUB, revision="v1", tokenSecretRef={"name": "hub", "key": "token"})),
    Row("guidance", _model(guidance="50.0")),
    Row("size", _model(width=8, height=2048)),
    Row("asleep", {"serving": {"replicas": 0}}),
    Row("mig", {"serving": {"gpu": {"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}}}),
    Row("resources", {"serving": {"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}}),
    Row("env", _pod(env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
    Row("env of a config map", _pod(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}}])),
    Row("labels", _pod(labels={"team": "art"}, annotations={"a.b/c": "d"})),
    Row("claims", _pod(resourceClaims=[{"name": "g", "resourceClaimName": "x"}])),
    Row("tolerations", _pod(tolerations=[{"operator": "Exists"}])),
    Row("capacity", {"cache": {"capacity": "9.5Gi"}}),
    Row("levels", {"cache": {"levels": [{"skipPercent": 25, "similarity": "0.9"}, {"skipPercent": 10, "similarity": "0.65"}]}}),
    Row("no levels", {"cache": {"levels": []}}),
    Row("volume", {"cache": {"store": {"volume": {"size": "100Gi", "storageClassName": "fast"}}, "capacity": "50Gi"}}),
    Row("external", _index(type="External", external=EXTERNAL | {"tokenSecretRef": {"name": "m", "key": "t"}, "caSecretRef": {"name": "m", "key": "c"}})),
    Row("external in the clear", _index(type="External", external={"uri": "http://milvus:19530"})),
    Row("standalone", _index(type="Standalone", standalone={})),
    Row("retain", {"reclaimPolicy": "Retain"}),
]  # fmt: skip

BAD = [
    Row("name too long", {}, ("metadata.name", "at most 40"), name="a" * 41),
    Row("name with a dot", {}, ("metadata.name", "begin with a letter"), name="a.b"),
    Row("name with a digit first", {}, ("metadata.name", "begin with a letter"), name="1a"),
    Row("source", _model(source="emoji"), ("spec.model.source", "bundled://emoji", "pvc://CLAIM/FOLDER")),
    Row("source of another kind", _model(source="s3://bucket"), ("spec.model.source", "must be")),
    Row("revision without hub", _model(revision="v1"), ("spec.model", "Hugging Face id", "remove them")),
    Row("token without hub", _model(source="pvc://m", tokenSecretRef={"name": "a", "key": "b"}), ("spec.model", "remove them")),
    Row("scheduler", _model(scheduler="PNDM"), ("spec.model.scheduler", "DDIM")),
    Row("guidance", _model(guidance="51"), ("spec.model.guidance", "from 0 to 50", "7.5")),
    Row("guidance is a word", _model(guidance="hot"), ("spec.model.guidance", "decimal")),
    Row("width", _model(width=65), ("spec.model.width", "multiple of 8")),
    Row("steps", _model(steps=0), ("spec.model.steps", "1")),
    Row("steps in quotes", _model(steps="8"), ("spec.model.steps", "integer")),
    Row("revision", _model(source=HUB, revision="a b"), ("spec.model.revision", "a branch, a tag")),
    Row("a line break", _model(source="bundled://emoji\n"), ("spec.model.source", "must be")),
    Row("two replicas", {"serving": {"replicas": 2}}, ("spec.serving.replicas", "0 or 1", "more DiffusionCaches")),
    Row("negative replicas", {"serving": {"replicas": -1}}, ("spec.serving.replicas", "0")),
    Row("gpu resource", {"serving": {"gpu": {"count": 1, "resourceName": "gpu"}}}, ("gpu.resourceName", "nvidia.com/gpu")),
    Row("env name", _pod(env=[{"name": "A-B", "value": "1"}]), ("spec.serving.pod.env[0].name", "underscores")),
    Row("env of ours", _pod(env=[{"name": "DIFFCACHE_X", "value": "1"}]), ("env[0].name", "choose another")),
    Row("env twice", _pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), ("spec.serving.pod.env", "A")),
    Row("env of two kinds", _pod(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]), ("env[0]", "either value or valueFrom")),
    Row("env of no source", _pod(env=[{"name": "A", "valueFrom": {}}]), ("valueFrom", "either secretKeyRef or configMapKeyRef")),
    Row("our labels", _pod(labels={"app.kubernetes.io/name": "x"}), ("spec.serving.pod.labels", "another prefix")),
    Row("our annotations", _pod(annotations={"diffcache.io/restart": "x"}), ("spec.serving.pod.annotations", "another prefix")),
    Row("claim of no name", _pod(resourceClaims=[{"name": "g"}]), ("resourceClaims[0]", "either resourceClaimName")),
    Row("capacity", {"cache": {"capacity": "64MB"}}, ("spec.cache.capacity", "64Mi")),
    Row("tiny capacity", {"cache": {"capacity": "1Ki"}}, ("spec.cache.capacity", "at least 1Mi")),
    Row("capacity above the volume", {"cache": {"capacity": "10Gi"}}, ("spec.cache", "below store.volume.size")),
    Row("similarity", {"cache": {"levels": [{"skipPercent": 10, "similarity": "1.5"}]}}, ("levels[0].similarity", "from 0 to 1")),
    Row("falling levels", {"cache": {"levels": [{"skipPercent": 10, "similarity": "0.9"}, {"skipPercent": 20, "similarity": "0.8"}]}}, ("spec.cache.levels", "must not fall")),
    Row("a level twice", {"cache": {"levels": [{"skipPercent": 10, "similarity": "0.9"}, {"skipPercent": 10, "similarity": "0.9"}]}}, ("spec.cache.levels", "10")),
    Row("external without block", _index(type="External"), ("spec.index", "set external")),
    Row("external block of another type", _index(external=EXTERNAL), ("spec.index", "set external")),
    Row("standalone without block", _index(type="Standalone"), ("spec.index", "set standalone")),
    Row("uri", _index(type="External", external={"uri": "milvus"}), ("index.external.uri", "http://milvus:19530")),
    Row("ca in the clear", _index(type="External", external={"uri": "http://m:1", "caSecretRef": {"name": "a", "key": "b"}}), ("index.external", "https://")),
    Row("a field of a later version", {"tuning": {"mode": "Auto"}}, ("spec.tuning", "unknown")),
    Row("a misspelt field", _model(stepps=8), ("spec.model.stepps", "unknown")),
]  # fmt: skip

REFUSED_CHANGES = [
    Row("scope", {"cache": {"scope": "Shared"}}, ("spec.cache", "scope cannot be changed", "create another")),
    Row("size", {"cache": {"store": {"volume": {"size": "20Gi"}}}}, ("spec.cache.store.volume", "size cannot be changed")),
    Row("class", {"cache": {"store": {"volume": {"storageClassName": "fast"}}}}, ("spec.cache.store.volume", "storageClassName cannot")),
    Row("index", {"index": {"type": "Standalone", "standalone": {}}}, ("spec.index", "type cannot be changed")),
]  # fmt: skip

GOOD_CHANGES = [
    Row("capacity", {"cache": {"capacity": "128Mi"}}),
    Row("model", {"model": {"source": "bundled://emoji-clip"}}),
    Row("asleep", {"serving": {"replicas": 0}}),
    Row("policy", {"reclaimPolicy": "Retain"}),
]


def manifest(row: Row) -> dict[str, Any]:
    return {
        "apiVersion": "diffcache.io/v1alpha1",
        "kind": "DiffusionCache",
        "metadata": {"name": row.name},
        "spec": BASE | row.spec,
    }
