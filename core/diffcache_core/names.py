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
