"""`spec.prometheus`, `spec.tuning` and `spec.autoscaling`: what follows what is measured."""

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
    RECOMMEND = "Recommend"  # decisions stand in the status, and are not carried out
    AUTO = "Auto"


class ScalingMode(StrEnum):
    DISABLED = "Disabled"  # serving.replicas is whoever's who writes it: you, an HPA, KEDA
    OPERATOR = "Operator"  # the operator's own loop writes it


_CONFIDENTIAL = r"(?i)^(authorization|proxy-.*|cookie|.*(token|secret|password|passwd|api-?key|credential|session).*)$"
_HEADERS_OF_THE_CONNECTION = (
    r"(?i)^(host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-.*|accept-encoding)$"
)


def _refuses(pattern: str, message: str) -> Rule:
    matches = Rule.matches(pattern, message)
    return Rule(f"!{matches.cel}", message, lambda value: not matches.holds(value))


class PrometheusHeader(Block):
    """A header of each question."""

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
    """Value of the header, which is no secret."""


class PrometheusSpec(Block):
    """Where the tuner reads what the pods have measured."""

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
    """Address of the Prometheus that scrapes the pods; absent: the operator's."""
    headers: Annotated[list[PrometheusHeader], Field(max_length=8), UniqueBy("name"), Change.HOT] | None = None
    """Sent with each question to `url`, such as X-Scope-OrgID for Mimir."""
    rules = (
        Rule(
            "!has(self.headers) || has(self.url)",
            "headers belong to url: set it, too; those of the operator's own Prometheus are set in its chart",
            lambda prometheus: prometheus.headers is None or prometheus.url is not None,
        ),
    )


class QualitySpec(Block):
    """What resumed pictures have to be worth."""

    target_percent: Annotated[StrictInt, Field(ge=50, le=100), Change.HOT] = 95
    """What the mean quality of resumed pictures must reach, as a share of that of pictures drawn without the cache."""
    shadow_percent: Annotated[StrictInt, Field(ge=0, le=20), Change.HOT] = 2
    """Share of the steps that comparisons may cost: the same request again, with and without the cache."""
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
    """The CLIPModel that judges pictures; absent: the bundled model's own, and none for any other model."""


class LatencySpec(Block):
    """How long requests may take."""

    p95_milliseconds: Annotated[StrictInt, Field(ge=1, le=10**7), Change.HOT]
    """Objective for the 95th percentile of a request's duration."""


class CapacityTuningSpec(Block):
    """Between which bounds the capacity is tuned."""

    min: Annotated[Quantity, Change.HOT]
    """The least that the tuner may set the capacity to."""
    max: Annotated[Quantity, Change.HOT]
    """The most that the tuner may set the capacity to: what you are willing to pay for."""
    min_gain: Annotated[Similarity, Change.HOT] = "0.02"
    """Capacity is worth doubling as long as the steps saved ratio rises by at least so much."""
    rules = (
        Rule(
            "!isQuantity(self.min) || !isQuantity(self.max) || quantity(self.min).compareTo(quantity(self.max)) <= 0",
            "min must not be above max",
            lambda capacity: bytes_of(capacity.min) <= bytes_of(capacity.max),
        ),
    )


class TuningSpec(Block):
    """Levels and capacity that follow what is measured."""

    mode: Annotated[TuningMode, Change.HOT] = TuningMode.DISABLED
    """Recommend shows in the status what it would do; Auto does it."""
    quality: QualitySpec = QualitySpec()
    latency: LatencySpec | None = None
    """With it levels are no looser than it needs; without, as loose as the quality's bound allows."""
    capacity: CapacityTuningSpec | None = None
    """Between which bounds the capacity is tuned; absent: it stays."""
    min_similarity: Annotated[Similarity, Change.HOT] | None = None
    """No level is ever tuned to ask for less."""


class AutoscalingSpec(Block):
    """A number of pods that follows the work that waits."""

    mode: Annotated[ScalingMode, Change.HOT] = ScalingMode.DISABLED
    """Operator: the operator's loop writes serving.replicas; Disabled: whoever else does."""
    min_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] = 1
    """The fewest pods that the operator goes down to."""
    max_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] | None = None
    """The most pods: what you are willing to pay for."""
    target_backlog_seconds: Annotated[StrictInt, Field(ge=1, le=3600), Change.HOT] = 10
    """Work that may wait for a pod: steps left to run times seconds a step."""
    scale_down_stabilization_seconds: Annotated[StrictInt, Field(ge=0, le=3600), Change.HOT] = 300
    """Seconds for which fewer replicas must have been enough before the operator removes one."""
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
