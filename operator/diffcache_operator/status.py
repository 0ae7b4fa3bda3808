"""Makes the whole status from what was read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from diffcache_core.foreign import printable_lines, without_credentials
from diffcache_core.kubernetes.diagnosis import Problem, diagnose
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.kubernetes.workloads import SERVING, Workload, index_workload, ledger_workload, serving_workload
from diffcache_core.names import GRPC_PORT
from diffcache_core.resource.spec import DiffusionCache, LedgerType, S3Spec
from diffcache_core.resource.status import (
    AutoscalingStatus,
    CacheStatus,
    Condition,
    DiffusionCacheStatus,
    IndexStatus,
    LedgerStatus,
    ServingStatus,
    StoreStatus,
    TuningStatus,
)
from diffcache_operator.by_hand import claims_left, last_correction
from diffcache_operator.conditions import ConditionState
from diffcache_operator.config_progress import config_progress
from diffcache_operator.desired.pod import FETCH_CONTAINER
from diffcache_operator.figures import Figures
from diffcache_operator.images import followed_choice, new_choice, recorded_images
from diffcache_operator.metadata import selector_labels
from diffcache_operator.observed import Observed, of_template

MESSAGE_LENGTH = 4096
"""Characters of a condition's message at most: an eighth of what the schema allows, and more than anybody reads."""

_MODEL_PROBLEMS = ("ModelLoadFailed", "DownloadFailed", "CudaUnavailable", "OutOfMemory")


@dataclass(frozen=True)
class Halt:
    """What keeps the operator from applying what it wants."""

    problem: Problem
    stalled: bool  # only a change of the spec helps


@dataclass(frozen=True)
class Facts:
    """Everything from which a status is made."""

    resource: DiffusionCache
    observed: Observed
    available_image: str = ""  # the operator's default image, if the pods run another one
    config_revision: str = ""  # of the desired ConfigMap
    missing_fields: Sequence[str] = ()
    halt: Halt | None = None
    growth: ConditionState | None = None  # the condition about volumes that are smaller than they should be
    applied: bool = True  # the StatefulSet of serving pods is as desired
    template_generation: int | None = None  # of that StatefulSet when its pod template changed last; None: unknown
    loops: Sequence[ConditionState] = ()  # conditions of the loops of tuning and scaling
    tuning: TuningStatus | None = None
    autoscaling: AutoscalingStatus | None = None
    correction: str = ""  # the change by hand that was undone just now


def make_status(facts: Facts, old: DiffusionCacheStatus, now: str) -> DiffusionCacheStatus:
    """Returns the new status. `now`: RFC 3339, the transition time of conditions that change."""
    name, namespace = facts.resource.metadata.name, facts.resource.metadata.namespace
    workload = facts.observed.stateful_set(name)
    generation = facts.resource.metadata.generation
    figures, images = facts.observed.figures or Figures(), recorded_images(facts.resource, old, facts.observed)
    return DiffusionCacheStatus(
        observed_generation=generation,
        conditions=[_dated(state, old, generation, now) for state in _states(facts, old, now)],
        replicas=workload.status.replicas if workload is not None else 0,
        ready_replicas=sum(pod.is_ready for pod in facts.observed.pods),
        selector=",".join(f"{key}={value}" for key, value in selector_labels(name, SERVING).items()),
        endpoint=f"{name}.{namespace}.svc:{GRPC_PORT}",
        serving=ServingStatus(
            image=images.serving,
            chosen=followed_choice(facts.resource, old, facts.observed),
            available=facts.available_image,
        ),
        index=IndexStatus(image=images.milvus, reached=old.index.reached or bool(figures.index_up)),
        ledger=LedgerStatus(image=images.redis, reached=old.ledger.reached or bool(figures.ledger_up)),
        store=StoreStatus(reached=old.store.reached or bool(figures.store_up)),
        cache=_figures(facts.observed.figures) or old.cache,
        tuning=facts.tuning,
        autoscaling=facts.autoscaling,
        correction=last_correction(facts.correction, old.correction, now),
    )


def invalid_status(generation: int, message: str, old: DiffusionCacheStatus, now: str) -> DiffusionCacheStatus:
    """Returns the status of a resource that this operator cannot read, because the CRD is of another version."""
    ready = ConditionState("Ready", "False", "InvalidSpec", message)
    states = [ready, _once(replace(ready, type="Stalled", status="True"), ready)]
    conditions = [_dated(state, old, generation, now) for state in states]
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _states(facts: Facts, old: DiffusionCacheStatus, now: str) -> list[ConditionState]:
    """Returns all conditions.

    Ready, ModelReady and IndexReady are always there; LedgerReady and StoreReady only if ledger or store lie outside
    the pods; all others only while they are true.
    """
    spec, problem = facts.resource.spec, _pod_problem(facts, old, now)
    ready = _ready(facts, old, problem)
    states = [_model_ready(facts, ready), _beside_ready(_index(facts), facts, now)]
    if spec.cache.ledger.type is not LedgerType.EMBEDDED:
        states.append(_beside_ready(_ledger(facts), facts, now))
    if spec.cache.store.s3 is not None:
        states.append(_store_ready(facts, spec.cache.store.s3, now))
    states += [*_under_way(facts, ready, problem), *_notices(facts)]
    return [ready, *(_once(state, ready) for state in states), *facts.loops]


def _under_way(facts: Facts, ready: ConditionState, problem: Problem | None) -> list[ConditionState]:
    """Returns the condition Reconciling or Stalled, or none."""
    if facts.halt is not None:
        kind = "Stalled" if facts.halt.stalled else "Reconciling"
        return [ConditionState(kind, "True", facts.halt.problem.reason, facts.halt.problem.message)]
    if problem is not None and problem.in_spec and ready.reason == problem.reason:
        return [replace(ready, type="Stalled", status="True")]
    if facts.growth is not None:
        return [facts.growth]
    if not _settled(facts, ready):
        return [replace(ready, type="Reconciling", status="True")]
    progress = config_progress(facts.observed.figures or Figures(), facts.config_revision)
    return [] if progress is None else [progress]


def _notices(facts: Facts) -> list[ConditionState]:
    """Returns conditions that a person may want to act on."""
    notices = []
    if facts.available_image:
        text = (
            f"the operator's default image is another: `kubectl diffcache upgrade {facts.resource.metadata.name}` "
            f"replaces the pods by ones of {facts.available_image}"
        )
        notices.append(ConditionState("UpdateAvailable", "True", "OtherImage", text))
    if facts.missing_fields:
        text = (
            "the installed CRD lacks fields of this operator, which are dropped without a word: "
            f"{', '.join(facts.missing_fields)}. Apply crds/ of this version, or upgrade the chart with "
            "crds.install=true"
        )
        notices.append(ConditionState("CRDOutdated", "True", "CRDOutdated", text))
    left = claims_left(facts.resource, facts.observed)
    return notices if left is None else [*notices, left]


def _once(state: ConditionState, ready: ConditionState) -> ConditionState:
    """Shortens a message that repeats the one of Ready."""
    return replace(state, message="as the condition Ready says") if state.message == ready.message else state


def _ready(facts: Facts, old: DiffusionCacheStatus, problem: Problem | None) -> ConditionState:
    if facts.halt is not None and not facts.applied:
        return ConditionState("Ready", "False", facts.halt.problem.reason, facts.halt.problem.message)
    if facts.resource.spec.serving.replicas == 0:
        return ConditionState("Ready", "True", "ScaledToZero", "no pod is wanted; the cache is kept")
    current = [pod for pod in _current_pods(facts) if pod.is_ready]
    if current:
        without = _without(facts.observed.figures or Figures(), old)
        if without is not None:
            return without
        return ConditionState(
            "Ready", "True", "Serving", f"{len(current)} of {facts.resource.spec.serving.replicas} pods serve"
        )
    if problem is not None:
        return ConditionState("Ready", "False", problem.reason, problem.message)
    if any(pod.is_ready for pod in facts.observed.pods):
        return ConditionState("Ready", "False", "RollingOut", "pods are being replaced by ones of the new revision")
    fetching = next(filter(_is_fetching, facts.observed.pods), None)
    if fetching is not None:
        logs = f"`kubectl logs {fetching.name} -c {FETCH_CONTAINER}` shows how far it is"
        return ConditionState(
            "Ready", "False", "DownloadingModel", f"{facts.resource.spec.model.source} is downloaded; {logs}"
        )
    return ConditionState("Ready", "False", "Starting", "the pod starts and loads its model")


def _without(figures: Figures, old: DiffusionCacheStatus) -> ConditionState | None:
    """Returns Ready for pods that answer but do not reach a part of the cache; None if they reach all parts.

    A part that was reached before has an outage: Ready stays true. A part that was never reached does not exist yet or
    has a wrong address: Ready is false.
    """
    for part, up, reached in (
        ("Ledger", figures.ledger_up, old.ledger.reached),
        ("Store", figures.store_up, old.store.reached),
        ("Index", figures.index_up, old.index.reached),
    ):
        if up is not False:
            continue
        condition = f"the condition {part}Ready says why"
        before = old.condition("Ready")
        # A status of an earlier version lacks `reached`.
        if reached or (before is not None and before.status == "True" and before.reason.startswith("Serving")):
            text = f"requests are answered, but nothing is found: {condition}"
            return ConditionState("Ready", "True", f"ServingWithout{part}", text)
        text = f"requests are answered, but no pod has ever reached the {part.lower()}, so nothing is kept: {condition}"
        return ConditionState("Ready", "False", f"{part}NotReached", text)
    return None


def _settled(facts: Facts, ready: ConditionState) -> bool:
    """Returns whether nothing is under way: all pods are of the current revision, and there are as many as wanted."""
    workload = facts.observed.stateful_set(facts.resource.metadata.name)
    if workload is None or ready.status != "True":
        return False
    wanted = facts.resource.spec.serving.replicas
    return len(facts.observed.pods) == wanted == len([pod for pod in _current_pods(facts) if pod.is_ready])


def _current_pods(facts: Facts) -> tuple[Pod, ...]:
    """Returns the pods of the pod template that was applied last. A mere change of their number keeps them current."""
    workload = facts.observed.stateful_set(facts.resource.metadata.name)
    if workload is None:
        return ()
    generation = workload.metadata.generation
    return of_template(facts.observed.pods, workload, min(facts.template_generation or generation, generation))


def _pod_problem(facts: Facts, old: DiffusionCacheStatus, now: str) -> Problem | None:
    gpu, name = facts.resource.spec.serving.gpu, facts.resource.metadata.name
    pinned, chosen = facts.resource.spec.serving.image or "", new_choice(facts.resource, old)
    workload, seen = serving_workload(name, gpu.resource_name if gpu.count else "", pinned, chosen), facts.observed
    return diagnose(workload, seen.pods, seen.claims, seen.events, datetime.fromisoformat(now))


def _is_fetching(pod: Pod) -> bool:
    containers = pod.status.init_container_statuses
    return any(one.name == FETCH_CONTAINER and one.state.running is not None for one in containers)


def _model_ready(facts: Facts, ready: ConditionState) -> ConditionState:
    if any(pod.is_ready for pod in facts.observed.pods):
        return ConditionState("ModelReady", "True", "Loaded", f"{facts.resource.spec.model.source} is loaded")
    if ready.reason in _MODEL_PROBLEMS:
        return ConditionState("ModelReady", "False", ready.reason, ready.message)
    return ConditionState("ModelReady", "Unknown", "NoPod", "no pod has loaded the model yet")


@dataclass(frozen=True)
class _Beside:
    """A service that the pods need: a workload of ours (Milvus, Redis), or an external one."""

    condition: str
    what: str  # as the messages call it
    product: str
    up: bool | None  # as the pods report it; None: no pod has reported it
    own: Workload | None
    pods: Sequence[Pod]
    claims: Sequence[VolumeClaim]
    address: str  # of an external service; empty for a workload of ours
    secrets: str


def _index(facts: Facts) -> _Beside:
    index, seen = facts.resource.spec.index, facts.observed
    return _Beside(
        condition="IndexReady",
        what="the index",
        product="Milvus",
        up=seen.figures.index_up if seen.figures else None,
        own=index_workload(facts.resource.metadata.name) if index.standalone else None,
        pods=seen.index_pods,
        claims=seen.index_claims,
        address=index.external.uri if index.external else "",
        secrets="token and CA",
    )


def _ledger(facts: Facts) -> _Beside:
    ledger, seen = facts.resource.spec.cache.ledger, facts.observed
    return _Beside(
        condition="LedgerReady",
        what="the ledger",
        product="Redis",
        up=seen.figures.ledger_up if seen.figures else None,
        own=ledger_workload(facts.resource.metadata.name) if ledger.provisioned else None,
        pods=seen.ledger_pods,
        claims=seen.ledger_claims,
        address=ledger.external.address if ledger.external else "",
        secrets="password and CA",
    )


def _store(facts: Facts, s3: S3Spec) -> _Beside:
    return _Beside(
        condition="StoreReady",
        what="the store",
        product=f"bucket {s3.bucket}",
        up=facts.observed.figures.store_up if facts.observed.figures else None,
        own=None,
        pods=(),
        claims=(),
        address=s3.endpoint or f"https://s3.{s3.region}.amazonaws.com",
        secrets="region and credentials",
    )


def _store_ready(facts: Facts, s3: S3Spec, now: str) -> ConditionState:
    left = _count(facts.observed.figures.undeleted) if facts.observed.figures else 0
    state = _beside_ready(_store(facts, s3), facts, now)
    if state.status != "True" or not left:
        return state
    return ConditionState(
        "StoreReady",
        "False",
        "NotDeleted",
        f"{left} states have left the cache, and bucket {s3.bucket} did not delete them: allow s3:DeleteObject, and "
        "end locks and retention of its objects; the pods try again until they are gone",
    )


def _beside_ready(beside: _Beside, facts: Facts, now: str) -> ConditionState:
    if beside.up:
        return ConditionState(beside.condition, "True", "Up", f"the pods reach {beside.what}")
    if beside.up is None:
        return ConditionState(
            beside.condition, "Unknown", "NoPod", f"no pod has reported whether it reaches {beside.what}"
        )
    if beside.own is not None:
        problem = diagnose(beside.own, beside.pods, beside.claims, facts.observed.events, datetime.fromisoformat(now))
        if problem is not None:
            message = f"{beside.product} does not come up: {problem.message}"
            return ConditionState(beside.condition, "False", problem.reason, message)
    where = f" at {without_credentials(beside.address)}" if beside.address else ""
    theirs = f"is there a {beside.product}{where}, and are {beside.secrets} right?"
    remedy = theirs if beside.address else "it is usually restarting"
    return ConditionState(beside.condition, "False", "Down", f"the pods do not reach {beside.what}{where}: {remedy}")


def _figures(figures: Figures | None) -> CacheStatus | None:
    if figures is None:
        return None

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    return CacheStatus(
        steps_saved_ratio=ratio(figures.steps_saved_ratio),
        hit_ratio=ratio(figures.hit_ratio),
        entries=_count(figures.entries),
        bytes=_count(figures.bytes),
    )


def _count(reported: float) -> int:
    """Limits a figure to what the status can hold. A user's own image may report any number."""
    return min(max(int(reported), 0), 2**62)


def _told(message: str) -> str:
    """Cleans and shortens a message: it may quote text of any length that a user wrote, such as the name of an
    image."""
    message = printable_lines(without_credentials(message))
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 3] + "..."


def _dated(state: ConditionState, old: DiffusionCacheStatus, generation: int, now: str) -> Condition:
    before = old.condition(state.type)
    since = before.last_transition_time if before is not None and before.status == state.status else now
    return Condition(
        type=state.type,
        status=state.status,
        reason=state.reason,
        message=_told(state.message),
        observed_generation=generation,
        last_transition_time=since,
    )
