"""Options of a resource's pods: typed copies of parts of Kubernetes' PodSpec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from diffcache_core.resource.rules import Block, Rule, UniqueBy

Text = Annotated[str, Field(max_length=253)]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]


class SecretKeyRef(Block):
    """A key of a Secret in the resource's namespace."""

    name: Annotated[Text, Field(min_length=1)]
    """Name of the Secret."""
    key: Annotated[Text, Field(min_length=1)]
    """Key in its data."""


class ConfigMapKeyRef(Block):
    """A key of a ConfigMap in the resource's namespace."""

    name: Annotated[Text, Field(min_length=1)]
    """Name of the ConfigMap."""
    key: Annotated[Text, Field(min_length=1)]
    """Key in its data."""


class Toleration(Block):
    """A taint that the pod tolerates."""

    key: Text | None = None
    """Key of the taint; absent, with operator Exists: all taints."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists accepts any value of the taint, Equal only `value`."""
    value: Text | None = None
    """Value of the taint, for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: any."""
    toleration_seconds: StrictInt | None = None
    """With effect NoExecute: seconds that the pod stays on a node after the node is tainted; absent: for ever."""


class NodeSelectorRequirement(Block):
    """A condition on the labels, or the fields, of a node."""

    key: Text
    """Label or field."""
    operator: Operator
    """How the label's value relates to `values`."""
    values: Annotated[list[Text], Field(max_length=100)] | None = None
    """Values for In and NotIn, one number for Gt and Lt, none for Exists and DoesNotExist."""


class NodeSelectorTerm(Block):
    """Requirements that all hold for a node."""

    match_expressions: Annotated[list[NodeSelectorRequirement], Field(max_length=20)] | None = None
    """Requirements on the node's labels."""
    match_fields: Annotated[list[NodeSelectorRequirement], Field(max_length=20)] | None = None
    """Requirements on the node's fields, such as metadata.name."""


class NodeSelector(Block):
    """Terms of which one must hold for a node."""

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=20)]
    """Terms of which one must hold."""


class PreferredSchedulingTerm(Block):
    """Nodes that are preferred, and how much."""

    weight: Annotated[StrictInt, Field(ge=1, le=100)]
    """How much a node of this term is preferred to others."""
    preference: NodeSelectorTerm
    """The nodes."""


class NodeAffinity(Block):
    """Nodes on which the pod may run, and nodes that it prefers."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """The nodes on which the pod may run."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PreferredSchedulingTerm], Field(max_length=20)] | None
    ) = None
    """The nodes that are preferred among those."""


class LabelRequirement(Block):
    """A condition on labels."""

    key: Text
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to `values`."""
    values: Annotated[list[Text], Field(max_length=100)] | None = None
    """Values for In and NotIn, none for Exists and DoesNotExist."""


class LabelSelector(Block):
    """Chooses objects by their labels."""

    match_labels: Labels | None = None
    """Labels that an object must have."""
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=20)] | None = None
    """Further requirements on its labels."""


class PodAffinityTerm(Block):
    """Other pods, and which nodes count as near to each other."""

    topology_key: Text
    """Label of nodes: those with an equal value are near to each other."""
    label_selector: LabelSelector | None = None
    """The other pods, by their labels."""
    namespaces: Annotated[list[Text], Field(max_length=20)] | None = None
    """Namespaces of the other pods; absent: the resource's own."""
    namespace_selector: LabelSelector | None = None
    """Namespaces of the other pods, by the namespaces' labels."""


class WeightedPodAffinityTerm(Block):
    """Other pods that are preferred near by or far away, and the weight of this preference."""

    weight: Annotated[StrictInt, Field(ge=1, le=100)]
    """Weight of this term among others."""
    pod_affinity_term: PodAffinityTerm
    """The other pods."""


class PodAffinity(Block):
    """Pods near which, or away from which, this pod runs."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[list[PodAffinityTerm], Field(max_length=20)] | None
    ) = None
    """Terms that must hold."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[WeightedPodAffinityTerm], Field(max_length=20)] | None
    ) = None
    """Terms that should hold where possible."""


class Affinity(Block):
    """Rules about the pod's nodes and about other pods near it."""

    node_affinity: NodeAffinity | None = None
    """The nodes."""
    pod_affinity: PodAffinity | None = None
    """Pods near which it runs."""
    pod_anti_affinity: PodAffinity | None = None
    """Pods away from which it runs."""


class TopologySpreadConstraint(Block):
    """How evenly pods are spread over parts of the cluster."""

    max_skew: Annotated[StrictInt, Field(ge=1)]
    """Number of pods by which two parts may differ."""
    topology_key: Text
    """Label of nodes: those with an equal value are one part."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether a pod waits (DoNotSchedule) or runs anyway (ScheduleAnyway) if the constraint cannot be met."""
    label_selector: LabelSelector | None = None
    """The pods that are counted."""
    min_domains: Annotated[StrictInt, Field(ge=1)] | None = None
    """Fewest parts that must exist."""


class ResourceClaim(Block):
    """A claim of dynamic resource allocation. Exactly one of resourceClaimName and resourceClaimTemplateName is set."""

    name: Text
    """Name of the claim within the pod."""
    resource_claim_name: Text | None = None
    """An existing ResourceClaim."""
    resource_claim_template_name: Text | None = None
    """A ResourceClaimTemplate from which each pod's claim is made."""
    rules = (
        Rule(
            "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            "set either resourceClaimName or resourceClaimTemplateName",
            lambda claim: (claim.resource_claim_name is None) != (claim.resource_claim_template_name is None),
        ),
    )


class EnvSource(Block):
    """Where a variable's value comes from."""

    secret_key_ref: SecretKeyRef | None = None
    """A key of a Secret."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """A key of a ConfigMap."""
    rules = (
        Rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "set either secretKeyRef or configMapKeyRef",
            lambda source: (source.secret_key_ref is None) != (source.config_map_key_ref is None),
        ),
    )


class EnvVar(Block):
    """An environment variable."""

    name: Annotated[
        Text,
        Rule.matches("^[A-Za-z_][A-Za-z0-9_]*$", "must be letters, digits and underscores, as in HTTPS_PROXY"),
        Rule(
            "!self.startsWith('DIFFCACHE_')",
            "names that begin with DIFFCACHE_ are the operator's: choose another",
            lambda name: not name.startswith("DIFFCACHE_"),
        ),
    ]
    """Name of the variable; those that begin with DIFFCACHE_ are the operator's."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Its value."""
    value_from: EnvSource | None = None
    """Where its value comes from."""
    rules = (
        Rule(
            "!(has(self.value) && has(self.valueFrom))",
            "set either value or valueFrom",
            lambda env: env.value is None or env.value_from is None,
        ),
    )


class LocalObjectRef(Block):
    """An object in the resource's namespace."""

    name: Annotated[Text, Field(min_length=1)]
    """Name of the object."""


_Id = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]


class SecurityContext(Block):
    """User and group ids of a pod's processes. An absent id is not set: the cluster or the image decides."""

    run_as_user: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    """User of the processes, never root."""
    run_as_group: _Id | None = None
    """Group of the processes."""
    fs_group: _Id | None = None
    """Group that owns the pod's volumes."""
    supplemental_groups: Annotated[list[_Id], Field(max_length=16)] | None = None
    """Further groups of the processes, such as one that may read a shared volume with models."""


_FOREIGN = Rule(
    "self.all(k, !k.startsWith('app.kubernetes.io/') && !k.contains('diffcache.io/'))",
    "keys of app.kubernetes.io and diffcache.io are the operator's: choose another prefix",
    lambda labels: not any(key.startswith("app.kubernetes.io/") or "diffcache.io/" in key for key in labels),
)
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64), _FOREIGN]


class Placement(Block):
    """Nodes, user, labels and annotations of pods."""

    node_selector: Labels | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """Taints that the pods tolerate."""
    affinity: Affinity | None = None
    """Rules about the pods' nodes and about other pods near them."""
    runtime_class_name: Text | None = None
    """RuntimeClass of the pods, such as nvidia."""
    priority_class_name: Text | None = None
    """PriorityClass of the pods."""
    security_context: SecurityContext | None = None
    """All ids of the processes; {} sets none, so OpenShift can assign them. Absent: 10001, or the chart's choice."""
    labels: Annotated[Labels, _FOREIGN] | None = None
    """Further labels of the pods."""
    annotations: Annotations | None = None
    """Annotations of the pods."""


class PodOptions(Placement):
    """Options of the serving pods, copied into them unchanged."""

    topology_spread_constraints: Annotated[list[TopologySpreadConstraint], Field(max_length=16)] | None = None
    """How the pods are spread over the cluster; absent: a shared cache's pods are spread over nodes if possible."""
    image_pull_secrets: Annotated[list[LocalObjectRef], Field(max_length=16), UniqueBy("name")] | None = None
    """Secrets for private registries, for all pods of the cache."""
    resource_claims: Annotated[list[ResourceClaim], Field(max_length=16), UniqueBy("name")] | None = None
    """Claims of dynamic resource allocation, given to the serving container."""
    env: Annotated[list[EnvVar], Field(max_length=64), UniqueBy("name")] | None = None
    """Further environment variables of the serving pods' containers."""
