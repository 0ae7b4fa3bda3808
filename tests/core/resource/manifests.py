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
    before: Spec | None = None  # of a change: what there was, laid over BASE


def _model(**model: Any) -> Spec:
    return {"model": {"source": "bundled://emoji"} | model}


def _index(**index: Any) -> Spec:
    return {"index": index}


def _pod(**pod: Any) -> Spec:
    return {"serving": {"pod": pod}}


def _ledger(**ledger: Any) -> Spec:
    return {"cache": {"ledger": ledger}}


def _s3(**s3: Any) -> Spec:
    return {"cache": {"store": {"type": "S3", "s3": {"bucket": "states"} | s3}}}


def shared(**more: Any) -> Spec:
    """What replicas can share, with everything beside the pods, and further parts of the spec."""
    return {
        "index": {"type": "Standalone", "standalone": {}},
        "cache": {
            "ledger": {"type": "Provisioned", "provisioned": {}},
            "store": {"type": "S3", "s3": {"bucket": "states"}},
        },
    } | more


def _sharing_all_but(part: str) -> Spec:
    """Two replicas of a cache that lacks one of the three."""
    spec = shared(serving={"replicas": 2})
    if part == "index":
        return {name: value for name, value in spec.items() if name != "index"}
    return spec | {"cache": {name: value for name, value in spec["cache"].items() if name != part}}


HUB = "org/model"
REDIS = {"address": "rediss://redis.example:6380/3"}
GOOD = [
    Row("short", {}),
    Row("left empty", {"serving": None, "cache": {"store": None}, "index": {"type": None}, "reclaimPolicy": None}),
    Row("longest name", {}, name="a" * 40),
    Row("file", _model(source="file:///opt/model")),
    Row("claim", _model(source="pvc://models/sd/1.5")),
    Row("whole claim", _model(source="pvc://models")),
    Row("hub", _model(source=HUB, revision="v1", tokenSecretRef={"name": "hub", "key": "token"})),
    Row("guidance", _model(guidance="50.0")),
    Row("size", _model(width=8, height=2048)),
    Row("largest area", _model(width=64, height=64, maxPixels=4096)),
    Row("asleep", {"serving": {"replicas": 0}}),
    Row("mig", {"serving": {"gpu": {"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}}}),
    Row("resources", {"serving": {"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}}),
    Row("amounts", {"serving": {"resources": {"requests": {"cpu": "500m", "memory": "1e9"}, "limits": {"cpu": "1.5"}}}}),
    Row("env", _pod(env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])),
    Row("env of a config map", _pod(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}}])),
    Row("labels", _pod(labels={"team": "art"}, annotations={"a.b/c": "d"})),
    Row("assigned ids", _pod(securityContext={})),
    Row("ids", _pod(securityContext={"runAsUser": 1, "runAsGroup": 0, "fsGroup": 2147483647, "supplementalGroups": [5]})),
    Row("identity", {"serving": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/states"}}}}),
    Row("pods beside", shared(serving={"pod": {"nodeSelector": {"pool": "a"}}}, index={"type": "Standalone", "standalone": {"pod": {"nodeSelector": {}, "priorityClassName": "low"}}})),
    Row("claims", _pod(resourceClaims=[{"name": "g", "resourceClaimName": "x"}])),
    Row("tolerations", _pod(tolerations=[{"operator": "Exists"}])),
    Row("capacity", {"cache": {"capacity": "9.5Gi"}}),
    Row("levels", {"cache": {"levels": [{"skipPercent": 25, "similarity": "0.9"}, {"skipPercent": 10, "similarity": "0.65"}]}}),
    Row("no levels", {"cache": {"levels": []}}),
    Row("volume", {"cache": {"store": {"volume": {"size": "100Gi", "storageClassName": "fast"}}, "capacity": "50Gi"}}),
    Row("external", _index(type="External", external=EXTERNAL | {"tokenSecretRef": {"name": "m", "key": "t"}, "caSecretRef": {"name": "m", "key": "c"}})),
    Row("a database of a milvus", _index(type="External", external=EXTERNAL | {"database": "pictures"})),
    Row("a database in the uri", _index(type="External", external={"uri": "http://milvus:19530/pictures"})),
    Row("a uri that ends with a slash", _index(type="External", external={"uri": "http://milvus:19530/", "database": "pictures"})),
    Row("a redis that ends with a slash", _ledger(type="External", external={"address": "redis://redis:6379/"})),
    Row("a bucket with a private authority", _s3(endpoint="https://minio:9000/", caSecretRef={"name": "m", "key": "c"})),
    Row("a bucket of amazon's behind a private authority", _s3(region="eu-west-1", caSecretRef={"name": "m", "key": "c"})),
    Row("a hub with a private authority", _model(source=HUB, caSecretRef={"name": "hub", "key": "ca"})),
    Row("external in the clear", _index(type="External", external={"uri": "http://milvus:19530"})),
    Row("standalone", _index(type="Standalone", standalone={})),
    Row("retain", {"reclaimPolicy": "Retain"}),
    Row("a redis of its own", _ledger(type="Provisioned", provisioned={"image": "redis:7", "resources": {"limits": {"memory": "1Gi"}}, "volume": {"size": "2Gi", "storageClassName": "fast"}})),
    Row("another's redis", _ledger(type="External", external=REDIS | {"passwordSecretRef": {"name": "r", "key": "p"}, "caSecretRef": {"name": "r", "key": "c"}})),
    Row("another's redis in the clear", _ledger(type="External", external={"address": "redis://user@[::1]:6379"})),
    Row("bucket", _s3(prefix="a/b_c.d", endpoint="http://minio:9000", region="eu-central-1", credentialsSecretRef={"name": "s3"})),
    Row("bucket of three letters", _s3(bucket="a-1", prefix="")),
    Row("a capacity that needs no volume", {"cache": {"capacity": "1Ti", "store": {"type": "S3", "s3": {"bucket": "states"}}}}),
    Row("two replicas", shared(serving={"replicas": 2})),
    Row("as many replicas as there may be", shared(serving={"replicas": 64}, index={"type": "External", "external": EXTERNAL})),
    Row("prometheus", {"prometheus": {"url": "https://prometheus.example:9090/path"}}),
    Row("prometheus by address", {"prometheus": {"url": "http://[fd00::1]:9090"}}),
    Row("prometheus with tenants", {"prometheus": {"url": "http://vm:8481/select/0:0/prometheus/"}}),
    Row(
        "headers",
        {"prometheus": {"url": "http://mimir", "headers": [{"name": "X-Scope-OrgID", "value": "a|b"}]}},
    ),
    Row("tuning", {"tuning": {"mode": "Auto", "quality": {"targetPercent": 90, "shadowPercent": 0, "scorer": "bundled://emoji-clip"}, "latency": {"p95Milliseconds": 4000}, "capacity": {"min": "32Mi", "max": "1Gi", "minGain": "0.01"}, "minSimilarity": "0.5"}}),
    Row("scorer in a folder", {"tuning": {"quality": {"scorer": "file:///opt/clip"}}}),
    Row("a capacity that does not move", {"tuning": {"capacity": {"min": "1Gi", "max": "1024Mi"}}}),
    Row("tuned above the volume, in a bucket", _s3() | {"tuning": {"capacity": {"min": "1Gi", "max": "1Ti"}}}),
    Row("scaling", shared(autoscaling={"mode": "Operator", "minReplicas": 2, "maxReplicas": 64, "targetBacklogSeconds": 1, "scaleDownStabilizationSeconds": 0})),
    Row("scaling within one replica", {"autoscaling": {"mode": "Operator", "maxReplicas": 1}}),
    Row("a scorer beside the model", {"model": {"source": "pvc://models/sd"}, "tuning": {"quality": {"scorer": "pvc://models/clip"}}}),
]  # fmt: skip

BAD = [
    Row("no amount", {"serving": {"resources": {"limits": {"cpu": "banana"}}}}, ("cpu", "an amount such as 2, 500m or 4Gi")),
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
    Row("area", _model(width=64, height=64, maxPixels=4095), ("spec.model", "at least width times height")),
    Row("width", _model(width=65), ("spec.model.width", "multiple of 8")),
    Row("steps", _model(steps=0), ("spec.model.steps", "1")),
    Row("steps in quotes", _model(steps="8"), ("spec.model.steps", "integer")),
    Row("revision", _model(source=HUB, revision="a b"), ("spec.model.revision", "a branch, a tag")),
    Row("a line break", _model(source="bundled://emoji\n"), ("spec.model.source", "must be")),
    Row("replicas with a cache each", {"serving": {"replicas": 2}}, ("spec", "serving.replicas above 1 needs", "index.type", "ledger.type", "store.type S3")),
    *(Row(f"replicas without a shared {part}", _sharing_all_but(part), ("serving.replicas above 1 needs",)) for part in ("index", "ledger", "store")),
    Row("too many replicas", shared(serving={"replicas": 65}), ("spec.serving.replicas", "64")),
    Row("negative replicas", {"serving": {"replicas": -1}}, ("spec.serving.replicas", "0")),
    Row("gpu resource", {"serving": {"gpu": {"count": 1, "resourceName": "gpu"}}}, ("gpu.resourceName", "nvidia.com/gpu")),
    Row("env name", _pod(env=[{"name": "A-B", "value": "1"}]), ("spec.serving.pod.env[0].name", "underscores")),
    Row("env of ours", _pod(env=[{"name": "DIFFCACHE_X", "value": "1"}]), ("env[0].name", "choose another")),
    Row("env twice", _pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), ("spec.serving.pod.env", "A")),
    Row("env of two kinds", _pod(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]), ("env[0]", "either value or valueFrom")),
    Row("env of no source", _pod(env=[{"name": "A", "valueFrom": {}}]), ("valueFrom", "either secretKeyRef or configMapKeyRef")),
    Row("our labels", _pod(labels={"app.kubernetes.io/name": "x"}), ("spec.serving.pod.labels", "another prefix")),
    Row("root", _pod(securityContext={"runAsUser": 0}), ("serving.pod.securityContext.runAsUser", "1")),
    Row("our annotations on the account", {"serving": {"serviceAccount": {"annotations": {"diffcache.io/x": "x"}}}}, ("spec.serving.serviceAccount.annotations", "another prefix")),
    Row("environment of a pod beside", _index(type="Standalone", standalone={"pod": {"env": []}}), ("index.standalone.pod.env", "unknown")),
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
    Row("a database named twice", _index(type="External", external={"uri": "http://m:1/a", "database": "b"}), ("index.external", "name the database once")),
    Row("no name of a database", _index(type="External", external={"uri": "http://m:1", "database": "a-b"}), ("index.external.database", "letters")),
    Row("a path in a uri", _index(type="External", external={"uri": "http://m:1/a/b"}), ("index.external.uri", "perhaps a database")),
    Row("ca of a bucket in the clear", _s3(endpoint="http://m:1", caSecretRef={"name": "a", "key": "b"}), ("store.s3", "https://")),
    Row("ca without hub", _model(source="pvc://m", caSecretRef={"name": "a", "key": "b"}), ("spec.model", "remove them")),
    Row("ca in the clear", _index(type="External", external={"uri": "http://m:1", "caSecretRef": {"name": "a", "key": "b"}}), ("index.external", "https://")),
    Row("a field of a later version", {"cache": {"ttlSeconds": 5}}, ("spec.cache.ttlSeconds", "unknown")),
    Row("a misspelt field", _model(stepps=8), ("spec.model.stepps", "unknown")),
    Row("provisioned without block", _ledger(type="Provisioned"), ("spec.cache.ledger", "set provisioned: {}")),
    Row("provisioned block of another type", _ledger(provisioned={}), ("spec.cache.ledger", "set provisioned: {}")),
    Row("external ledger without block", _ledger(type="External"), ("spec.cache.ledger", "set external: {address:")),
    Row("external ledger block of another type", _ledger(external=REDIS), ("spec.cache.ledger", "set external: {address:")),
    Row("ledger of no type", _ledger(type="Redis"), ("spec.cache.ledger.type", "Provisioned")),
    Row("address", _ledger(type="External", external={"address": "redis:6379"}), ("ledger.external.address", "redis://redis:6379")),
    Row("address with a name of a database", _ledger(type="External", external={"address": "redis://redis:6379/x"}), ("ledger.external.address", "must be")),
    Row("ca of a ledger in the clear", _ledger(type="External", external={"address": "redis://r:1", "caSecretRef": {"name": "a", "key": "b"}}), ("ledger.external", "rediss://")),
    Row("bucket without block", {"cache": {"store": {"type": "S3"}}}, ("spec.cache.store", "set s3: {bucket: NAME}")),
    Row("bucket of another type", {"cache": {"store": {"s3": {"bucket": "states"}}}}, ("spec.cache.store", "set s3: {bucket: NAME}")),
    Row("bucket", _s3(bucket="My_States"), ("store.s3.bucket", "must be the name of a bucket")),
    Row("prefix", _s3(prefix="/a"), ("store.s3.prefix", "without slashes at its ends")),
    Row("endpoint", _s3(endpoint="minio:9000"), ("store.s3.endpoint", "http://minio:9000")),
    Row("endpoint with a path", _s3(endpoint="http://minio:9000/x"), ("store.s3.endpoint", "must be")),
    Row("prometheus", {"prometheus": {"url": "prometheus:9090"}}, ("spec.prometheus.url", "http://prometheus:9090")),
    Row(
        "prometheus user",
        {"prometheus": {"url": "http://me:hunter2@prometheus:9090"}},
        ("spec.prometheus.url", "must not hold a user or a password"),
    ),
    *(
        Row(f"{what} with a password", block, ("must not hold a", "password, which whoever", remedy))
        for what, remedy, block in (
            (
                "redis",
                "name a Secret in passwordSecretRef",
                {
                    "cache": {
                        "ledger": {"type": "External", "external": {"address": "redis://me:hunter2@redis:6379/1"}}
                    }
                },
            ),
            (
                "milvus",
                "name a Secret in tokenSecretRef",
                {"index": {"type": "External", "external": {"uri": "https://root:hunter2@milvus"}}},
            ),
            (
                "s3",
                "name a Secret in credentialsSecretRef",
                {
                    "cache": {
                        "store": {"type": "S3", "s3": {"bucket": "states", "endpoint": "http://key:hunter2@minio:9000"}}
                    }
                },
            ),
        )
    ),
    *(
        Row(f"prometheus url {end!r}", {"prometheus": {"url": f"http://prometheus{end}"}}, ("that is: host, port and path",))
        for end in ("?x=1", "#", "/?", "/a b", "/\x1b[31m", ":9090\n", "/%3F", ":x", "\\", "/\u202e")
    ),
    Row(
        "headers without url",
        {"prometheus": {"headers": [{"name": "X-Scope-OrgID", "value": "a"}]}},
        ("headers belong to url",),
    ),
    *(
        Row(f"header {name}", {"prometheus": {"url": "http://a", "headers": [{"name": name, "value": value}]}}, words)
        for name, value, words in (
            ("X Scope", "a", ("must be a header's name",)),
            ("authorization", "a", ("is a secret", "headersSecret")),
            ("X-Api-Key", "a", ("is a secret", "headersSecret")),
            ("Host", "a", ("belongs to the connection",)),
            ("X-Scope-OrgID", "a\r\nX: y", ("must be printable ASCII",)),
        )
    ),
    Row("tuning mode", {"tuning": {"mode": "On"}}, ("spec.tuning.mode", "Recommend")),
    Row("quality target", {"tuning": {"quality": {"targetPercent": 49}}}, ("tuning.quality.targetPercent", "50")),
    Row("shadows beyond measure", {"tuning": {"quality": {"shadowPercent": 21}}}, ("tuning.quality.shadowPercent", "20")),
    Row("scorer", {"tuning": {"quality": {"scorer": "openai/clip"}}}, ("tuning.quality.scorer", "bundled://emoji-clip")),
    Row("latency", {"tuning": {"latency": {"p95Milliseconds": 0}}}, ("tuning.latency.p95Milliseconds", "1")),
    Row("capacities the wrong way round", {"tuning": {"capacity": {"min": "1Gi", "max": "1023Mi"}}}, ("spec.tuning.capacity", "min must not be above max")),
    Row("gain", {"tuning": {"capacity": {"min": "1Gi", "max": "2Gi", "minGain": "2"}}}, ("tuning.capacity.minGain", "from 0 to 1")),
    Row("least similarity", {"tuning": {"minSimilarity": "-1"}}, ("spec.tuning.minSimilarity", "from 0 to 1")),
    Row("tuned above the volume", {"tuning": {"capacity": {"min": "1Gi", "max": "10Gi"}}}, ("spec", "tuning.capacity.max must be below")),
    Row("scaling of caches apart", {"autoscaling": {"mode": "Operator", "maxReplicas": 2}}, ("spec", "autoscaling.maxReplicas above 1 needs")),
    Row("scaling without an end", {"autoscaling": {"mode": "Operator"}}, ("spec.autoscaling", "mode Operator needs maxReplicas")),
    Row("a scorer on another claim", {"model": {"source": "pvc://models/sd"}, "tuning": {"quality": {"scorer": "pvc://others/clip"}}}, ("spec", "must lie on the claim that holds the model")),
    Row("a scorer on a claim, a model in the image", {"tuning": {"quality": {"scorer": "pvc://models/clip"}}}, ("spec", "must lie on the claim that holds the model")),
    Row("scaling the wrong way round", shared(autoscaling={"minReplicas": 3, "maxReplicas": 2}), ("spec.autoscaling", "minReplicas must not be above")),
    Row("scaling to nothing", {"autoscaling": {"minReplicas": 0}}, ("autoscaling.minReplicas", "1")),
]  # fmt: skip

_LEDGER = {"ledger": {"type": "Provisioned", "provisioned": {}}}
REFUSED_CHANGES = [
    Row("scope", {"cache": {"scope": "Shared"}}, ("spec.cache", "scope cannot be changed", "create another")),
    Row("a smaller volume", {"cache": {"store": {"volume": {"size": "9Gi"}}}}, ("spec.cache.store.volume", "size cannot become smaller")),
    Row("class", {"cache": {"store": {"volume": {"storageClassName": "fast"}}}}, ("spec.cache.store.volume", "storageClassName cannot")),
    Row("index", {"index": {"type": "Standalone", "standalone": {}}}, ("spec.index", "type cannot be changed")),
    Row("ledger", {"cache": _LEDGER}, ("spec.cache.ledger", "type cannot be changed")),
    Row("store", _s3(), ("spec.cache.store", "type cannot be changed")),
    Row("bucket", _s3(bucket="others"), ("spec.cache.store.s3", "bucket cannot be changed"), before=_s3()),
    Row("prefix", _s3(prefix="b"), ("spec.cache.store.s3", "prefix cannot be changed"), before=_s3()),
    Row("a smaller volume of the ledger", _ledger(provisioned={"volume": {"size": "1023Mi"}}), ("spec.cache.ledger.provisioned.volume", "size cannot become"), before={"cache": _LEDGER}),
    Row("a smaller volume of the index", _index(standalone={"volume": {"size": "1Gi"}}), ("spec.index.standalone.volume", "size cannot become"), before=_index(type="Standalone", standalone={})),
    Row("class of the ledger", _ledger(provisioned={"volume": {"storageClassName": "fast"}}), ("spec.cache.ledger.provisioned.volume", "storageClassName cannot"), before={"cache": _LEDGER}),
    Row("replicas with a cache each", {"serving": {"replicas": 2}}, ("serving.replicas above 1 needs",)),
]  # fmt: skip

GOOD_CHANGES = [
    Row("capacity", {"cache": {"capacity": "128Mi"}}),
    Row("model", {"model": {"source": "bundled://emoji-clip"}}),
    Row("a larger volume", {"cache": {"store": {"volume": {"size": "20Gi"}}}}),
    Row("the same volume in other words", {"cache": {"store": {"volume": {"size": "10240Mi"}}}}),
    Row("a larger volume of the ledger", _ledger(provisioned={"volume": {"size": "2Gi"}}), before={"cache": _LEDGER}),
    Row("asleep", {"serving": {"replicas": 0}}),
    Row("policy", {"reclaimPolicy": "Retain"}),
    Row("tuning", {"tuning": {"mode": "Auto", "capacity": {"min": "1Gi", "max": "2Gi"}}}),
    Row("another's redis elsewhere", _ledger(external={"address": "redis://b:6379"}), before=_ledger(type="External", external={"address": "redis://a:6379"})),
    Row("endpoint", _s3(endpoint="http://b:9000", credentialsSecretRef={"name": "s3"}), before=_s3(endpoint="http://a:9000")),
    Row("scaling", {"autoscaling": {"mode": "Operator", "maxReplicas": 4}}, before=shared()),
]  # fmt: skip


def manifest(row: Row) -> dict[str, Any]:
    return {
        "apiVersion": "diffcache.io/v1alpha1",
        "kind": "DiffusionCache",
        "metadata": {"name": row.name},
        "spec": BASE | row.spec,
    }
