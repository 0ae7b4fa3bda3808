"""Names that several parts of the code share."""

from __future__ import annotations

API_VERSION = "diffcache.io/v1alpha1"
KIND = "DiffusionCache"

GRPC_PORT = 50051
ADMIN_PORT = 50052
METRICS_PORT = 9095

TENANT_METADATA = "x-diffcache-tenant"
"""Request metadata that names the tenant. An authenticating proxy should set it."""

RESULT_METADATA = "x-diffcache-result"
SIMILARITY_METADATA = "x-diffcache-similarity"
STEPS_SKIPPED_METADATA = "x-diffcache-steps-skipped"
TOKENS_DROPPED_METADATA = "x-diffcache-prompt-tokens-dropped"
NEGATIVE_TOKENS_DROPPED_METADATA = "x-diffcache-negative-prompt-tokens-dropped"
"""Trailing metadata of `Generate`, for proxies and access logs that do not parse the answer."""

DEFAULT_TENANT = "default"

# Names in a cluster.
GROUP, VERSION = API_VERSION.split("/")
PLURAL = "diffusioncaches"
CACHE_LABEL = "diffcache.io/cache"
"""Label on every child: the name of its DiffusionCache."""
MANAGER = "diffcache-operator"
"""The operator's field manager, and the value of app.kubernetes.io/managed-by."""
IMAGE_ANNOTATION = "diffcache.io/serving-image"
"""Annotation on a DiffusionCache: with it `kubectl diffcache upgrade` chooses another serving image."""

SERVING_IMAGE = "docker.io/diffcache/serving"
OPERATOR_IMAGE = "docker.io/diffcache/operator"
MILVUS_IMAGE = "docker.io/milvusdb/milvus:v2.3.5"
"""The release that the tests run."""
REDIS_IMAGE = "docker.io/library/redis:7.0.15"
"""The release that the tests run."""
SCALER = "diffcache-autoscaler"
"""The field manager of the operator's scaling loop."""

# Series that the tuner, the scaling loop, the recording rules and the dashboards read.
METRIC = "diffcache_"
QUALITY_PAIRS = METRIC + "quality_pairs_total"
"""{skip, similarity}: comparisons of a picture resumed at `skip` percent with the same picture made without the
cache."""
QUALITY_SUM = METRIC + "quality_sum_total"
"""{skip, similarity, moment}: sums over those pairs of q_c, q_u, q_c^2, q_u^2 and q_c q_u, where q_c is the quality
with the cache and q_u the one without."""
MOMENTS = ("c", "u", "cc", "uu", "cu")
SHADOW_CACHE_STEPS = METRIC + "shadow_cache_steps_total"
SHADOW_CACHE_SKIPPED = METRIC + "shadow_cache_steps_skipped_total"
"""{multiple}: steps asked for and steps skipped in a simulated cache of `multiple` times the capacity."""
SHADOW_MULTIPLES = (0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
TUNING_REVISION = METRIC + "tuning_revision"
STEPS, STEPS_SKIPPED = METRIC + "steps_total", METRIC + "steps_skipped_total"
PENDING_STEPS = METRIC + "pending_steps"
DEVICE_SECONDS = METRIC + "device_seconds_total"
"""Seconds of denoiser calls: its rate is the busy share of a pod's device."""
CONFIG_PENDING = METRIC + "config_pending"
"""{part}: 1 while the pod does not use that part of the newest config yet."""
CONFIG_PARTS = ("file", "defaults", "levels", "cache", "quality", "shadow_caches")
START_TIME = METRIC + "start_time_seconds"
"""Start time of the process: if it changes, its counters have restarted at 0."""
LEVEL = METRIC + "level_similarity"
"""{skip}: the similarity in force."""
STEP_SECONDS = METRIC + "step_seconds"  # histogram
REQUEST_SECONDS = METRIC + "request_duration_seconds"  # histogram {model, result}
SHADOW_RUNS = METRIC + "shadow_runs_total"
"""{outcome}: compared, dropped (there was no idle time), failed."""
SHADOW_OUTCOMES = ("compared", "dropped", "failed")

SIMILARITY_BIN_WIDTH = 0.05
"""Width of the bins of the label `similarity`, which is the lower edge of a bin with two decimals. Narrower bins follow
the quality curve more closely, but each bin needs comparisons of its own before it proves anything."""


def similarity_bin(similarity: float) -> str:
    """Returns the label of the bin of a similarity from 0 to 1; a cosine below 0 counts as 0."""
    return f"{max(0, min(19, int(similarity / SIMILARITY_BIN_WIDTH + 1e-9))) * SIMILARITY_BIN_WIDTH:.2f}"


def similarity_bins(start: float, end: float) -> tuple[str, ...]:
    """Returns the labels of all bins with similarities from `start` to below `end`; none if `start` is above 1."""
    if start > 1.0:
        return ()
    edges = (edge * SIMILARITY_BIN_WIDTH for edge in range(20))
    return tuple(similarity_bin(edge) for edge in edges if similarity_bin(start) <= similarity_bin(edge) and edge < end)


MODEL_MOUNT = "/models"
"""Where a pod mounts the claim of a `pvc://` model."""
REASON_FILE_ENVIRONMENT = "DIFFCACHE_REASON_FILE"
"""Names a file to which a serving process that cannot start writes `REASON: message`; in a pod it becomes the
termination message."""
