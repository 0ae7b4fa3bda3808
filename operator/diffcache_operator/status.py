"""The status, whole, from what was read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffcache_core.names import GRPC_PORT
from diffcache_core.spec import DiffusionCache, IndexType
from diffcache_core.status import CacheStatus, Condition, DiffusionCacheStatus, ServingStatus
from diffcache_operator.desired.metadata import JSON, SERVING, selector_labels
from diffcache_operator.diagnosis import Problem, diagnose
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed, is_ready

Truth = Literal["True", "False", "Unknown"]

_MODEL_PROBLEMS = ("ModelLoadFailed", "DownloadFailed", "CudaUnavailable", "OutOfMemory")


@dataclass(frozen=True)
class Halt:
    """What keeps the operator from applying what it wants."""

    problem: Problem
    stalled: bool  # only a change of the spec helps


@dataclass(frozen=True)
class Facts:
    """What a status is made of."""

    resource: DiffusionCache
    observed: Observed
    image: str
    available_image: str = ""  # if it is another
    missing_fields: Sequence[str] = ()
    halt: Halt | None = None


@dataclass(frozen=True)
class _Claim:
    """A condition without its times."""

    type: str
    status: Truth
    reason: str
    message: str


def make_status(facts: Facts, old: DiffusionCacheStatus, now: str) -> DiffusionCacheStatus:
    """`now`: RFC 3339, for conditions that change."""
    name, namespace = facts.resource.metadata.name, facts.resource.metadata.namespace
    workload = facts.observed.child("StatefulSet", name) or {}
    generation = facts.resource.metadata.generation
    return DiffusionCacheStatus(
        observed_generation=generation,
        conditions=[_dated(claim, old, generation, now) for claim in _claims(facts)],
        replicas=workload.get("status", {}).get("replicas", 0),
        ready_replicas=sum(map(is_ready, facts.observed.pods)),
        selector=",".join(f"{key}={value}" for key, value in selector_labels(name, SERVING).items()),
        endpoint=f"{name}.{namespace}.svc:{GRPC_PORT}",
        serving=ServingStatus(image=facts.image, available=facts.available_image),
        cache=_figures(facts.observed.figures) or old.cache,
    )


def invalid_status(generation: int, message: str, old: DiffusionCacheStatus, now: str) -> DiffusionCacheStatus:
    """Of a resource that this operator cannot read, because the CRD that let it in is of another version."""
    claims = [
        _Claim("Ready", "False", "InvalidSpec", message),
        _Claim("Stalled", "True", "InvalidSpec", message),
    ]
    conditions = [_dated(claim, old, generation, now) for claim in claims]
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _claims(facts: Facts) -> list[_Claim]:
    """Ready, ModelReady and IndexReady always; the others only while they are true."""
    ready = _ready(facts)
    claims = [ready, _model_ready(facts, ready), _index_ready(facts)]
    if facts.halt is not None and facts.halt.stalled:
        claims.append(_Claim("Stalled", "True", facts.halt.problem.reason, facts.halt.problem.message))
    elif facts.halt is not None or not _settled(facts, ready):
        claims.append(_Claim("Reconciling", "True", ready.reason, ready.message))
    if facts.available_image:
        claims.append(
            _Claim(
                "UpdateAvailable",
                "True",
                "NewerImage",
                f"`kubectl diffcache upgrade {facts.resource.metadata.name}` replaces the pods by ones of "
                f"{facts.available_image}",
            )
        )
    if facts.missing_fields:
        claims.append(
            _Claim(
                "CRDOutdated",
                "True",
                "CRDOutdated",
                "the installed CRD lacks fields of this operator, which are dropped without a word: "
                f"{', '.join(facts.missing_fields)}. Apply crds/ of this version, or upgrade the chart with "
                "crds.install=true",
            )
        )
    return claims


def _ready(facts: Facts) -> _Claim:
    if facts.halt is not None:
        return _Claim("Ready", "False", facts.halt.problem.reason, facts.halt.problem.message)
    if facts.resource.spec.serving.replicas == 0:
        return _Claim("Ready", "True", "ScaledToZero", "no pod is wanted; the cache is kept")
    current = [pod for pod in _current_pods(facts) if is_ready(pod)]
    if current:
        if facts.observed.figures is not None and facts.observed.figures.index_up is False:
            return _Claim("Ready", "True", "ServingWithoutIndex", "requests are answered, but nothing is found")
        return _Claim(
            "Ready", "True", "Serving", f"{len(current)} of {facts.resource.spec.serving.replicas} pods serve"
        )
    problem = _pod_problem(facts)
    if problem is not None:
        return _Claim("Ready", "False", problem.reason, problem.message)
    if any(map(is_ready, facts.observed.pods)):
        return _Claim("Ready", "False", "RollingOut", "the pod is being replaced by one of the new revision")
    if any(_is_fetching(pod) for pod in facts.observed.pods):
        source = facts.resource.spec.model.source
        return _Claim(
            "Ready", "False", "DownloadingModel", f"{source} is downloaded; `kubectl logs` shows how far it is"
        )
    return _Claim("Ready", "False", "Starting", "the pod starts and loads its model")


def _settled(facts: Facts, ready: _Claim) -> bool:
    """Nothing is under way: what is there is of the current revision, and as many as wanted."""
    workload = facts.observed.child("StatefulSet", facts.resource.metadata.name)
    if workload is None or ready.status != "True":
        return False
    wanted = facts.resource.spec.serving.replicas
    return len(facts.observed.pods) == wanted == len([pod for pod in _current_pods(facts) if is_ready(pod)])


def _current_pods(facts: Facts) -> list[JSON]:
    """Those made from the template that was applied last."""
    workload = facts.observed.child("StatefulSet", facts.resource.metadata.name)
    if workload is None:
        return []
    status = workload.get("status", {})
    if status.get("observedGeneration") != workload["metadata"]["generation"]:
        return []
    revision = status.get("updateRevision")
    return [
        pod
        for pod in facts.observed.pods
        if pod["metadata"].get("labels", {}).get("controller-revision-hash") == revision
    ]


def _pod_problem(facts: Facts) -> Problem | None:
    gpu = facts.resource.spec.serving.gpu
    claims = [claim for claim in facts.observed.claims if claim["metadata"]["name"].startswith("data-")]
    wanted = gpu.resource_name if gpu.count else ""
    return diagnose(facts.observed.pods, claims, facts.observed.events, wanted)


def _is_fetching(pod: JSON) -> bool:
    return any(
        "running" in status.get("state", {}) for status in pod.get("status", {}).get("initContainerStatuses", [])
    )


def _model_ready(facts: Facts, ready: _Claim) -> _Claim:
    if any(map(is_ready, facts.observed.pods)):
        return _Claim("ModelReady", "True", "Loaded", f"{facts.resource.spec.model.source} is loaded")
    if ready.reason in _MODEL_PROBLEMS:
        return _Claim("ModelReady", "False", ready.reason, ready.message)
    return _Claim("ModelReady", "Unknown", "NoPod", "no pod has loaded the model yet")


def _index_ready(facts: Facts) -> _Claim:
    up = facts.observed.figures.index_up if facts.observed.figures else None
    if up:
        return _Claim("IndexReady", "True", "Up", "the pods reach the index")
    if up is None:
        return _Claim("IndexReady", "Unknown", "NoPod", "no pod has told whether it reaches the index")
    index = facts.resource.spec.index
    if index.type is IndexType.STANDALONE:
        problem = diagnose(facts.observed.index_pods, facts.observed.claims, facts.observed.events)
        if problem is not None:
            return _Claim("IndexReady", "False", problem.reason, f"Milvus does not come up: {problem.message}")
    where = f" at {index.external.uri}" if index.external else ""
    remedy = f"is there a Milvus{where}, and are token and CA right?" if index.external else "it is usually restarting"
    return _Claim("IndexReady", "False", "Down", f"the pods do not reach the index{where}: {remedy}")


def _figures(figures: Figures | None) -> CacheStatus | None:
    if figures is None:
        return None

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    return CacheStatus(
        steps_saved_ratio=ratio(figures.steps_saved_ratio),
        hit_ratio=ratio(figures.hit_ratio),
        entries=int(figures.entries),
        bytes=int(figures.bytes),
    )


def _dated(claim: _Claim, old: DiffusionCacheStatus, generation: int, now: str) -> Condition:
    before = old.condition(claim.type)
    since = before.last_transition_time if before is not None and before.status == claim.status else now
    return Condition(
        type=claim.type,
        status=claim.status,
        reason=claim.reason,
        message=claim.message,
        observed_generation=generation,
        last_transition_time=since,
    )
