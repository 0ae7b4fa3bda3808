"""`spec.prometheus`, `spec.tuning` and `spec.autoscaling`: settings of what follows measurements."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StrictInt

from diffcache_core.quantities import bytes_of
from diffcache_core.resource.rules import Block, Change, Rule, UniqueBy
from diffcache_core.resource.spec.serving import MAX_REPLICAS
from diffcache_core.resource.spec.values import HOST, Quantity, Similarity, without_user


class TuningMode(StrEnum):
    DISABLED = "Disabled"
    RECOMMEND = "Recommend"  # decisions are shown in the status and not carried out
    AUTO = "Auto"


class ScalingMode(StrEnum):
    DISABLED = "Disabled"  # you, an HPA or KEDA write serving.replicas
    OPERATOR = "Operator"  # the operator's own loop writes it


_CONFIDENTIAL = r"(?i)^(authorization|proxy-.*|cookie|.*(token|secret|password|passwd|api-?key|credential|session).*)$"
_HEADERS_OF_THE_CONNECTION = (
    r"(?i)^(host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-.*|accept-encoding)$"
)


def _refuses(pattern: str, message: str) -> Rule:
    matches = Rule.matches(pattern, message)
    return Rule(f"!{matches.cel}", message, lambda value: not matches.holds(value))


class PrometheusHeader(Block):
    """A header of each query."""

    name: Annotated[
        str,
        Field(max_length=64),
        Rule.matches(r"^[A-Za-z0-9-]+$", "must be a header's name, such as X-Scope-OrgID"),
        _refuses(
            _CONFIDENTIAL,
            "is a secret, and anybody may read a manifest: set prometheus.url and, for the header, "
            "prometheus.tokenSecret or headersSecret of the operator's chart",
        ),
        _refuses(_HEADERS_OF_THE_CONNECTION, "belongs to the connection, which sets it itself: remove it"),
    ]
    """Name of the header, such as X-Scope-OrgID."""
    value: Annotated[str, Field(max_length=256), Rule.matches(r"^[!-~]([ -~]*[!-~])?$", "must be printable ASCII")]
    """Value of the header, which must not be a secret."""


class PrometheusSpec(Block):
    """The Prometheus from which the tuner reads the pods' metrics."""

    url: (
        Annotated[
            str,
            Field(max_length=512),
            without_user("set prometheus.url and prometheus.headersSecret of the operator's chart instead"),
            Rule.matches(
                rf"^https?://{HOST}(/[A-Za-z0-9._~:/-]*)?$",
                "must be the address of a Prometheus, such as http://prometheus:9090, that is: host, port and path",
            ),
            Change.HOT,
        ]
        | None
    ) = None
    """Address of the Prometheus that scrapes the pods; absent: the one of the operator's chart."""
    headers: Annotated[list[PrometheusHeader], Field(max_length=8), UniqueBy("name"), Change.HOT] | None = None
    """Headers of each query to `url`, such as X-Scope-OrgID for Mimir."""
    rules = (
        Rule(
            "!has(self.headers) || has(self.url)",
            "headers belong to url: set it, too; those of the operator's own Prometheus are set in its chart",
            lambda prometheus: prometheus.headers is None or prometheus.url is not None,
        ),
    )


class QualitySpec(Block):
    """The quality that resumed pictures must have."""

    target_percent: Annotated[StrictInt, Field(ge=50, le=100), Change.HOT] = 95
    """Mean quality that resumed pictures must reach, as a percentage of that of pictures made without the cache."""
    shadow_percent: Annotated[StrictInt, Field(ge=0, le=20), Change.HOT] = 2
    """Percentage of the steps that comparisons may take: each repeats a request with and without the cache."""
    scorer: (
        Annotated[
            str,
            Field(max_length=512),
            Rule.matches(
                r"^(bundled://[a-z0-9-]+|file://.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.+)?)$",
                "must be bundled://emoji-clip, file:// and the path of a CLIPModel's folder, or pvc://CLAIM/FOLDER "
                "of the claim that holds the model",
            ),
            Change.ROLL,
        ]
        | None
    ) = None
    """The CLIPModel that scores pictures; absent: for the bundled model its own, for any other model none."""


class LatencySpec(Block):
    """The latency objective."""

    p95_milliseconds: Annotated[StrictInt, Field(ge=1, le=10**7), Change.HOT]
    """Objective for the 95th percentile of a request's duration, in milliseconds."""


class CapacityTuningSpec(Block):
    """Bounds between which the capacity is tuned."""

    min: Annotated[Quantity, Change.HOT]
    """Smallest capacity that the tuner may set."""
    max: Annotated[Quantity, Change.HOT]
    """Largest capacity that the tuner may set: what you are willing to pay for."""
    min_gain: Annotated[Similarity, Change.HOT] = "0.02"
    """Gain in the steps saved ratio that makes a doubling of the capacity worth it."""
    rules = (
        Rule(
            "!isQuantity(self.min) || !isQuantity(self.max) || quantity(self.min).compareTo(quantity(self.max)) <= 0",
            "min must not be above max",
            lambda capacity: bytes_of(capacity.min) <= bytes_of(capacity.max),
        ),
    )


class TuningSpec(Block):
    """Tuning of levels and capacity by measurements."""

    mode: Annotated[TuningMode, Change.HOT] = TuningMode.DISABLED
    """Recommend only shows decisions in the status; Auto carries them out."""
    quality: QualitySpec = QualitySpec()
    latency: LatencySpec | None = None
    """With an objective, levels are only as loose as it requires; absent: as loose as the quality target allows."""
    capacity: CapacityTuningSpec | None = None
    """Bounds between which the capacity is tuned; absent: it stays."""
    min_similarity: Annotated[Similarity, Change.HOT] | None = None
    """Lowest similarity to which the tuner may set a level."""


class AutoscalingSpec(Block):
    """Scaling of the pods by the waiting work."""

    mode: Annotated[ScalingMode, Change.HOT] = ScalingMode.DISABLED
    """Operator: the operator's loop writes serving.replicas. Disabled: it does not; you or another autoscaler may."""
    min_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] = 1
    """Fewest pods to which the operator scales."""
    max_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] | None = None
    """Most pods to which the operator scales: what you are willing to pay for."""
    target_backlog_seconds: Annotated[StrictInt, Field(ge=1, le=3600), Change.HOT] = 10
    """Seconds of work that may wait per pod: steps left to run times seconds per step."""
    scale_down_stabilization_seconds: Annotated[StrictInt, Field(ge=0, le=3600), Change.HOT] = 300
    """Seconds for which fewer replicas must have been enough before the operator removes any."""
    rules = (
        Rule(
            "self.mode != 'Operator' || has(self.maxReplicas)",
            "mode Operator needs maxReplicas: how many pods you are willing to pay for",
            lambda scaling: scaling.mode is not ScalingMode.OPERATOR or scaling.max_replicas is not None,
        ),
        Rule(
            "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas",
            lambda scaling: scaling.max_replicas is None or scaling.min_replicas <= scaling.max_replicas,
        ),
    )
