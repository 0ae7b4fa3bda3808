"""Names that more than one part has to spell the same way."""

from __future__ import annotations

API_VERSION = "diffcache.io/v1alpha1"
KIND = "DiffusionCache"

GRPC_PORT = 50051
ADMIN_PORT = 50052
METRICS_PORT = 9095

TENANT_METADATA = "x-diffcache-tenant"
"""Request metadata that names the tenant; an authenticating proxy is expected to set it."""

RESULT_METADATA = "x-diffcache-result"
SIMILARITY_METADATA = "x-diffcache-similarity"
STEPS_SKIPPED_METADATA = "x-diffcache-steps-skipped"
"""Trailing metadata of `Generate`, for proxies and access logs that do not parse the answer."""

DEFAULT_TENANT = "default"

# What a cluster calls things.
GROUP, VERSION = API_VERSION.split("/")
PLURAL = "diffusioncaches"
CACHE_LABEL = "diffcache.io/cache"
"""On every child: the name of its DiffusionCache."""
MANAGER = "diffcache-operator"
"""The operator's field manager, and the value of app.kubernetes.io/managed-by."""
IMAGE_ANNOTATION = "diffcache.io/serving-image"
"""On a DiffusionCache: `kubectl diffcache upgrade` moves the recorded image by it."""

SERVING_IMAGE = "docker.io/diffcache/serving"
OPERATOR_IMAGE = "docker.io/diffcache/operator"
MILVUS_IMAGE = "docker.io/milvusdb/milvus:v2.3.5"
"""The release that the tests run."""

MODEL_MOUNT = "/models"
"""Where a pod mounts the claim of a `pvc://` model."""
REASON_FILE_ENVIRONMENT = "DIFFCACHE_REASON_FILE"
"""A serving process that cannot start writes `REASON: message` there; in a pod it is the termination message."""
