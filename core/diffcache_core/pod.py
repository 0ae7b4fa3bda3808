"""What a resource may say about its pods: typed copies of the parts of Kubernetes' own PodSpec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from diffcache_core.rules import Block, Rule, UniqueBy

Text = Annotated[str, Field(max_length=253)]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]


class SecretKeyRef(Block):
    """A key of a Secret in the resource's namespace."""

    name: Annotated[Text, Field(min_length=1)]
    key: Annotated[Text, Field(min_length=1)]


class Toleration(Block):
    key: Text | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: Text | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: StrictInt | None = None


class NodeSelectorRequirement(Block):
    key: Text
    operator: Operator
    values: Annotated[list[Text], Field(max_length=100)] | None = None


class NodeSelectorTerm(Block):
    match_expressions: Annotated[list[NodeSelectorRequirement], Field(max_length=20)] | None = None
    match_fields: Annotated[list[NodeSelectorRequirement], Field(max_length=20)] | None = None


class NodeSelector(Block):
    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=20)]


class PreferredSchedulingTerm(Block):
    weight: Annotated[StrictInt, Field(ge=1, le=100)]
    preference: NodeSelectorTerm


class NodeAffinity(Block):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PreferredSchedulingTerm], Field(max_length=20)] | None
    ) = None


class LabelRequirement(Block):
    key: Text
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[Text], Field(max_length=100)] | None = None


class LabelSelector(Block):
    match_labels: Labels | None = None
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=20)] | None = None


class PodAffinityTerm(Block):
    topology_key: Text
    label_selector: LabelSelector | None = None
    namespaces: Annotated[list[Text], Field(max_length=20)] | None = None
    namespace_selector: LabelSelector | None = None


class WeightedPodAffinityTerm(Block):
    weight: Annotated[StrictInt, Field(ge=1, le=100)]
    pod_affinity_term: PodAffinityTerm


class PodAffinity(Block):
    required_during_scheduling_ignored_during_execution: (
        Annotated[list[PodAffinityTerm], Field(max_length=20)] | None
    ) = None
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[WeightedPodAffinityTerm], Field(max_length=20)] | None
    ) = None


class Affinity(Block):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(Block):
    max_skew: Annotated[StrictInt, Field(ge=1)]
    topology_key: Text
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    label_selector: LabelSelector | None = None
    min_domains: Annotated[StrictInt, Field(ge=1)] | None = None


class ResourceClaim(Block):
    """Dynamic resource allocation: exactly one of the two names."""

    name: Text
    resource_claim_name: Text | None = None
    resource_claim_template_name: Text | None = None
    rules = (
        Rule(
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            "set either resourceClaimName or resourceClaimTemplateName",
            lambda claim: (claim.resource_claim_name is None) != (claim.resource_claim_template_name is None),
        ),
    )


class EnvSource(Block):
    secret_key_ref: SecretKeyRef | None = None
    config_map_key_ref: SecretKeyRef | None = None
    rules = (
        Rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "set either secretKeyRef or configMapKeyRef",
            lambda source: (source.secret_key_ref is None) != (source.config_map_key_ref is None),
        ),
    )


class EnvVar(Block):
    name: Annotated[
        Text,
        Rule.matches("^[A-Za-z_][A-Za-z0-9_]*$", "must be letters, digits and underscores, as in HTTPS_PROXY"),
        Rule(
            "!self.startsWith('DIFFCACHE_')",
            "names that begin with DIFFCACHE_ are the operator's: choose another",
            lambda name: not name.startswith("DIFFCACHE_"),
        ),
    ]
    value: Annotated[str, Field(max_length=8192)] | None = None
    value_from: EnvSource | None = None
    rules = (
        Rule(
            "!(has(self.value) && has(self.valueFrom))",
            "set either value or valueFrom",
            lambda env: env.value is None or env.value_from is None,
        ),
    )


class LocalObjectRef(Block):
    name: Annotated[Text, Field(min_length=1)]


_FOREIGN = Rule(
    "self.all(k, !k.startsWith('app.kubernetes.io/') && !k.contains('diffcache.io/'))",
    "keys of app.kubernetes.io and diffcache.io are the operator's: choose another prefix",
    lambda labels: not any(key.startswith("app.kubernetes.io/") or "diffcache.io/" in key for key in labels),
)
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)]


class PodOptions(Block):
    """Passed on to the serving pods as they are."""

    node_selector: Labels | None = None
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    affinity: Affinity | None = None
    topology_spread_constraints: Annotated[list[TopologySpreadConstraint], Field(max_length=16)] | None = None
    runtime_class_name: Text | None = None
    priority_class_name: Text | None = None
    image_pull_secrets: Annotated[list[LocalObjectRef], Field(max_length=16), UniqueBy("name")] | None = None
    resource_claims: Annotated[list[ResourceClaim], Field(max_length=16), UniqueBy("name")] | None = None
    env: Annotated[list[EnvVar], Field(max_length=64), UniqueBy("name")] | None = None
    labels: Annotated[Labels, _FOREIGN] | None = None
    annotations: Annotated[Annotations, _FOREIGN] | None = None
