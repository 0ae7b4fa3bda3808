"""From what was read to what a person is told: every condition, and when it turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diffcache_core.kubernetes.diagnosis import Problem
from diffcache_core.names import CACHE_LABEL
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_operator.events import transition_event
from diffcache_operator.figures import Figures
from diffcache_operator.observed import JSON, Observed
from diffcache_operator.status import MESSAGE_LENGTH, Facts, Halt, invalid_status, make_status
from tests.operator.resources import as_claims, as_pods, cache

EMPTY = DiffusionCacheStatus()
NOW, LATER = "2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z"


def workload(replicas: int = 1, *, behind: bool = False) -> JSON:
    return {
        "kind": "StatefulSet",
        "metadata": {"name": "emoji", "uid": "s", "generation": 2, "labels": {CACHE_LABEL: "emoji"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"image": "serving:1"}]}}},
        "status": {"observedGeneration": 1 if behind else 2, "updateRevision": "emoji-new", "replicas": replicas},
    }


def pod(*, ready: bool = True, revision: str = "emoji-new", **status: Any) -> JSON:
    return {
        "metadata": {"name": "emoji-0", "uid": "p", "labels": {"controller-revision-hash": revision}},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": str(ready)}]} | status,
    }


CRASHED = pod(
    ready=False,
    containerStatuses=[
        {
            "name": "serving",
            "ready": False,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 2, "message": "ModelLoadFailed: no such model"}},
        }
    ],
)
UP, DOWN = Figures(index_up=True), Figures(index_up=False)


def facts(
    *pods: JSON, resource: DiffusionCache | None = None, figures: Figures | None = None, sts: JSON | None = None
) -> Facts:
    children: dict[tuple[str, str], JSON | None] = {("StatefulSet", "emoji"): workload() if sts is None else sts}
    return Facts(resource or cache(), Observed(children=children, pods=as_pods(*pods), figures=figures))


def status_of(given: Facts, old: DiffusionCacheStatus = EMPTY, now: str = NOW) -> DiffusionCacheStatus:
    return make_status(given, old, now)


def message(status: DiffusionCacheStatus, kind: str) -> str:
    condition = status.condition(kind)
    assert condition is not None
    return condition.message


def told(status: DiffusionCacheStatus, kind: str) -> tuple[str, str] | None:
    condition = status.condition(kind)
    return None if condition is None else (condition.status, condition.reason)


@pytest.mark.parametrize(
    ("given", "ready", "reconciling"),
    [
        (facts(), ("False", "Starting"), True),
        (facts(pod(ready=False)), ("False", "Starting"), True),
        (facts(pod(), figures=UP), ("True", "Serving"), False),
        (facts(pod(), figures=DOWN), ("False", "IndexNotReached"), True),
        (facts(pod(), figures=None), ("True", "Serving"), False),
        (facts(pod(revision="emoji-old"), figures=UP), ("False", "RollingOut"), True),
        (facts(pod(), sts=workload(behind=True)), ("False", "RollingOut"), True),
        (
            facts(pod(ready=False, initContainerStatuses=[{"name": "fetch-model", "state": {"running": {}}}])),
            ("False", "DownloadingModel"),
            True,
        ),
        (facts(resource=cache(serving={"replicas": 0}), sts=workload(0)), ("True", "ScaledToZero"), False),
        (facts(pod(), resource=cache(serving={"replicas": 0}), sts=workload(0)), ("True", "ScaledToZero"), True),
    ],
)
def test_ready(given: Facts, ready: tuple[str, str], reconciling: bool) -> None:
    status = status_of(given)
    assert told(status, "Ready") == ready
    assert (told(status, "Reconciling") is not None) is reconciling
    assert told(status, "Stalled") is None
    assert status.observed_generation == 3
    assert all(condition.message for condition in status.conditions)


def test_what_only_the_spec_can_cure_is_stalled_and_said_once() -> None:
    """kstatus gives up waiting; and a message of a thousand characters stands in one condition only."""
    status = status_of(facts(CRASHED))
    assert told(status, "Ready") == ("False", "ModelLoadFailed")
    assert told(status, "Stalled") == ("True", "ModelLoadFailed")
    assert told(status, "Reconciling") is None
    assert told(status, "ModelReady") == ("False", "ModelLoadFailed")
    assert [c.type for c in status.conditions if "no such model" in c.message] == ["Ready"]
    assert all(condition.message for condition in status.conditions)


@pytest.mark.parametrize(
    ("resource", "lost", "part"),
    [
        (cache(index={"type": "External", "external": {"uri": "http://milvus:19530"}}), {"index_up": False}, "Index"),
        (
            cache(cache={"ledger": {"type": "External", "external": {"address": "redis://redis:6379"}}}),
            {"ledger_up": False},
            "Ledger",
        ),
        (cache(cache={"store": {"type": "S3", "s3": {"bucket": "states"}}}), {"store_up": False}, "Store"),
    ],
)
def test_a_part_that_was_never_there_is_another_thing_than_one_that_was_lost(
    resource: DiffusionCache, lost: dict[str, Any], part: str
) -> None:
    """`kubectl wait --for=condition=Ready` must not pass for a cache that has never kept anything."""
    reaches = Figures(index_up=True, ledger_up=True, store_up=True)
    cut_off = replace(reaches, **lost)
    asleep = status_of(facts(resource=DiffusionCache.model_validate(_asleep(resource)), sts=workload(0)))
    assert told(asleep, "Ready") == ("True", "ScaledToZero")
    never = status_of(facts(pod(), resource=resource, figures=cut_off), asleep)
    assert told(never, "Ready") == ("False", f"{part}NotReached")
    assert f"{part}Ready" in message(never, "Ready")
    again = status_of(facts(pod(), resource=resource, figures=cut_off), never)
    assert told(again, "Ready") == ("False", f"{part}NotReached")
    reached = status_of(facts(pod(), resource=resource, figures=reaches), again)
    assert told(reached, "Ready") == ("True", "Serving")
    away = status_of(facts(resource=resource), reached)  # no pod for a while: it is known all the same
    outage = status_of(facts(pod(), resource=resource, figures=cut_off), away)
    assert told(outage, "Ready") == ("True", f"ServingWithout{part}")
    assert f"{part}Ready" in message(outage, "Ready")


def _asleep(resource: DiffusionCache) -> JSON:
    document = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["serving"]["replicas"] = 0
    return document


def test_an_earlier_operators_status_does_not_lower_ready_in_an_outage() -> None:
    """It tells nothing of what was reached."""
    before = status_of(facts(pod(), figures=UP))
    before = before.model_copy(update={"index": before.index.model_copy(update={"reached": False})})
    assert told(status_of(facts(pod(), figures=DOWN), before), "Ready") == ("True", "ServingWithoutIndex")


def test_a_download_says_how_to_look_at_it() -> None:
    fetching = pod(ready=False, initContainerStatuses=[{"name": "fetch-model", "state": {"running": {}}}])
    assert "`kubectl logs emoji-0 -c fetch-model`" in message(status_of(facts(fetching)), "Ready")


def test_what_a_person_wrote_may_be_longer_than_a_condition() -> None:
    image = "x" * 100_000
    waiting = {"name": "serving", "image": image, "ready": False, "state": {"waiting": {"reason": "InvalidImageName"}}}
    status = status_of(facts(pod(ready=False, containerStatuses=[waiting])))
    assert told(status, "Ready") == ("False", "ImagePullFailed")
    assert message(status, "Ready").endswith("...")
    assert len(message(status, "Ready")) == MESSAGE_LENGTH


@pytest.mark.parametrize("told_by_pod", [1e300, -1e300])
def test_what_a_pod_tells_fits_into_the_status(told_by_pod: float) -> None:
    """Else the API server refuses the whole status, and all of it stands still."""
    cache_status = status_of(facts(pod(), figures=replace(UP, entries=told_by_pod, bytes=told_by_pod))).cache
    assert cache_status is not None
    assert 0 <= cache_status.entries == cache_status.bytes < 2**63


def test_a_pod_on_its_way_out_is_not_ready() -> None:
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = NOW
    assert told(status_of(facts(leaving)), "Ready") == ("False", "Starting")


@pytest.mark.parametrize(
    ("given", "index"),
    [
        (facts(), ("Unknown", "NoPod")),
        (facts(pod(), figures=UP), ("True", "Up")),
        (facts(pod(), figures=DOWN), ("False", "Down")),
    ],
)
def test_index(given: Facts, index: tuple[str, str]) -> None:
    assert told(status_of(given), "IndexReady") == index


def test_the_milvus_of_a_cache_says_why_it_is_down() -> None:
    resource = cache(index={"type": "Standalone", "standalone": {}})
    milvus = pod(
        ready=False,
        containerStatuses=[
            {"name": "milvus", "image": "milvus:1", "ready": False, "state": {"waiting": {"reason": "ErrImagePull"}}}
        ],
    )
    given = facts(pod(), resource=resource, figures=DOWN)
    given = replace(given, observed=replace(given.observed, index_pods=as_pods(milvus)))
    assert told(status_of(given), "IndexReady") == ("False", "ImagePullFailed")


THEIRS = cache(
    "emoji",
    cache={
        "store": {"type": "S3", "s3": {"bucket": "states"}},
        "ledger": {"type": "External", "external": {"address": "redis://redis:6379"}},
    },
    index={"type": "External", "external": {"uri": "http://milvus:19530"}},
    autoscaling={"mode": "Operator", "maxReplicas": 4},
)
OWN_REDIS = cache(cache={"ledger": {"type": "Provisioned", "provisioned": {}}})
THEIR_REDIS = cache(cache={"ledger": {"type": "External", "external": {"address": "redis://redis:6379/1"}}})
LOST = Figures(index_up=True, ledger_up=False)


@pytest.mark.parametrize(
    ("given", "ledger", "ready"),
    [
        (facts(pod(), figures=UP), None, "Serving"),  # one that is embedded is the pod's own affair
        (facts(resource=OWN_REDIS), ("Unknown", "NoPod"), "Starting"),
        (facts(pod(), resource=OWN_REDIS, figures=replace(UP, ledger_up=True)), ("True", "Up"), "Serving"),
        (facts(pod(), resource=OWN_REDIS, figures=LOST), ("False", "Down"), "LedgerNotReached"),
        (facts(pod(), resource=THEIR_REDIS, figures=LOST), ("False", "Down"), "LedgerNotReached"),
        (
            facts(pod(), resource=OWN_REDIS, figures=replace(LOST, index_up=False)),
            ("False", "Down"),
            "LedgerNotReached",
        ),
    ],
)
def test_ledger(given: Facts, ledger: tuple[str, str] | None, ready: str) -> None:
    status = status_of(given)
    assert told(status, "LedgerReady") == ledger
    assert (told(status, "Ready") or ("", ""))[1] == ready


IN_BUCKET = cache(cache={"store": {"type": "S3", "s3": {"bucket": "states", "endpoint": "http://minio:9000"}}})
CUT_OFF = replace(UP, store_up=False)


@pytest.mark.parametrize(
    ("given", "store", "ready"),
    [
        (facts(pod(), figures=UP), None, "Serving"),  # a volume is the pod's own affair
        (facts(resource=IN_BUCKET), ("Unknown", "NoPod"), "Starting"),
        (facts(pod(), resource=IN_BUCKET, figures=replace(UP, store_up=True)), ("True", "Up"), "Serving"),
        (
            facts(pod(), resource=IN_BUCKET, figures=replace(UP, store_up=True, undeleted=3.0)),
            ("False", "NotDeleted"),
            "Serving",
        ),
        (
            facts(pod(), resource=IN_BUCKET, figures=replace(UP, store_up=False)),
            ("False", "Down"),
            "StoreNotReached",
        ),
    ],
)
def test_store(given: Facts, store: tuple[str, str] | None, ready: str) -> None:
    status = status_of(given)
    assert told(status, "StoreReady") == store
    assert (told(status, "Ready") or ("", ""))[1] == ready


def test_a_store_that_is_down_is_named_with_what_to_look_at() -> None:
    status = status_of(facts(pod(), resource=IN_BUCKET, figures=CUT_OFF))
    text = message(status, "StoreReady")
    assert "is there a bucket states at http://minio:9000, and are region and credentials right?" in text


def test_states_that_a_bucket_did_not_delete_are_told() -> None:
    figures = replace(UP, store_up=True, undeleted=3.0)
    text = message(status_of(facts(pod(), resource=IN_BUCKET, figures=figures)), "StoreReady")
    assert text.startswith("3 states have left the cache, and bucket states did not delete them: allow s3:DeleteObject")


def test_no_password_and_no_escape_is_told() -> None:
    """Whatever is repeated: here what the API server or a webhook says."""
    said = "webhook https://root:hunter2@policy:443/\x1b[31m says no to redis://me:hunter2@redis"
    halt = Halt(Problem("Forbidden", said), stalled=False)
    status = status_of(replace(facts(pod()), halt=halt, applied=False))
    assert message(status, "Ready") == "webhook https://policy:443/\\x1b[31m says no to redis://redis"
    assert "hunter2" not in status.model_dump_json()


def test_the_redis_of_a_cache_says_why_it_is_down() -> None:
    redis = pod(
        ready=False,
        containerStatuses=[
            {
                "name": "redis",
                "image": "redis:1",
                "ready": False,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            }
        ],
    )
    given = facts(pod(), resource=OWN_REDIS, figures=LOST)
    status = status_of(replace(given, observed=replace(given.observed, ledger_pods=as_pods(redis))))
    assert told(status, "LedgerReady") == ("False", "OutOfMemory")
    assert "spec.cache.ledger.provisioned.resources.limits.memory" in message(status, "LedgerReady")


def test_model() -> None:
    assert told(status_of(facts(pod())), "ModelReady") == ("True", "Loaded")
    assert told(status_of(facts(CRASHED)), "ModelReady") == ("False", "ModelLoadFailed")
    assert told(status_of(facts()), "ModelReady") == ("Unknown", "NoPod")


@pytest.mark.parametrize("stalled", [True, False])
def test_what_cannot_be_applied(stalled: bool) -> None:
    given = replace(facts(pod(), figures=UP), halt=Halt(Problem("NameTaken", "rename it"), stalled))
    status = status_of(replace(given, applied=False))
    assert told(status, "Ready") == ("False", "NameTaken")
    assert told(status_of(given), "Ready") == ("True", "Serving")  # what serves is as it should be
    assert told(status, "Stalled" if stalled else "Reconciling") == ("True", "NameTaken")
    assert told(status, "Reconciling" if stalled else "Stalled") is None


def test_a_hot_change_is_under_way_until_the_pod_has_taken_it_over() -> None:
    old, new = "a" * 12, "b" * 12
    for revisions, reason in (({old}, "ConfigOnItsWay"), ({new}, None), (set(), None), ({old, new}, "ConfigOnItsWay")):
        figures = Figures(index_up=True, config_revisions=frozenset(revisions))
        status = status_of(replace(facts(pod(), figures=figures), config_revision=new))
        condition = status.condition("Reconciling")
        assert (condition.reason if condition else None) == reason
        assert told(status, "Ready") == ("True", "Serving")


def test_a_pod_that_cannot_take_over_its_config_names_the_fields() -> None:
    figures = Figures(index_up=True, config_revisions=frozenset({"old"}), config_pending=frozenset({"cache", "file"}))
    status = status_of(replace(facts(pod(), figures=figures), config_revision="new"))
    assert told(status, "Reconciling") == ("True", "ConfigHangs")
    assert "spec.cache.capacity: the ledger does not answer" in message(status, "Reconciling")
    assert "spec.tuning" not in message(status, "Reconciling")


def test_updates_and_an_old_crd_are_told_and_change_nothing_else() -> None:
    given = replace(facts(pod(), figures=UP), available_image="serving:2", missing_fields=["spec.cache.levels"])
    status = status_of(given)
    assert told(status, "Ready") == ("True", "Serving")
    update, outdated = status.condition("UpdateAvailable"), status.condition("CRDOutdated")
    assert update is not None
    assert outdated is not None
    assert "serving:2" in update.message
    assert "spec.cache.levels" in outdated.message
    assert status.serving.available == "serving:2"


def test_the_time_of_a_condition_is_that_of_its_last_turn() -> None:
    first = status_of(facts(pod(), figures=UP))
    same = status_of(facts(pod(), figures=DOWN), first, LATER)  # it was reached once: another reason, the same status
    turned = status_of(facts(), first, LATER)
    times = [s.condition("Ready").last_transition_time for s in (first, same, turned)]  # type: ignore[union-attr]
    assert times == [NOW, NOW, LATER]


def test_nothing_new_is_the_same_status() -> None:
    first = status_of(facts(pod(), figures=UP))
    assert status_of(facts(pod(), figures=UP), first, LATER) == first


def test_figures_stay_while_no_pod_tells_any() -> None:
    figures = Figures(steps=100, steps_skipped=25, hits=3, look_ups=4, entries=7, bytes=900, index_up=True)
    warm = status_of(facts(pod(), figures=figures))
    assert warm.cache is not None
    assert (warm.cache.steps_saved_ratio, warm.cache.hit_ratio, warm.cache.entries) == ("0.250", "0.750", 7)
    assert status_of(facts(), warm, LATER).cache == warm.cache
    assert status_of(facts(pod(), figures=UP)).cache.steps_saved_ratio == ""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("resource", "there", "left"),
    [
        (cache(), ["data-emoji-0"], ""),
        (cache(), ["data-emoji-0", "data-emoji-1", "data-emoji-2"], "data-emoji-1 data-emoji-2"),
        (cache(serving={"replicas": 0}), ["data-emoji-0"], ""),  # asleep: it keeps its cache
        (THEIRS, [f"data-emoji-{i}" for i in range(4)], ""),  # its own loop may go up again
        (THEIRS, [f"data-emoji-{i}" for i in range(6)], "data-emoji-4 data-emoji-5"),
    ],
)
def test_claims_that_a_hand_left_behind_are_told(resource: DiffusionCache, there: list[str], left: str) -> None:
    given = facts(pod(), resource=resource, figures=UP)
    claims = as_claims(*({"metadata": {"name": name}, "spec": {}} for name in there))
    status = status_of(replace(given, observed=replace(given.observed, claims=claims)))
    assert told(status, "ClaimsLeft") == (("True", "ScaledDown") if left else None)
    assert not left or message(status, "ClaimsLeft").endswith(f"`kubectl delete pvc {left}`")


def test_what_clients_and_autoscalers_read() -> None:
    status = status_of(facts(pod()))
    assert status.endpoint == "emoji.demo.svc:50051"
    assert (status.replicas, status.ready_replicas) == (1, 1)
    assert "app.kubernetes.io/instance=emoji" in status.selector


def test_a_resource_of_another_version_is_stalled() -> None:
    status = invalid_status(5, "unknown key", status_of(facts(pod())), LATER)
    assert told(status, "Stalled") == ("True", "InvalidSpec")
    assert told(status, "Ready") == ("False", "InvalidSpec")
    assert status.serving.image == "serving:1"
    assert [condition.type for condition in status.conditions if "unknown key" in condition.message] == ["Ready"]


def test_events_tell_turns_only() -> None:
    resource = cache()
    starting, serving = status_of(facts()), status_of(facts(pod(), figures=UP))
    assert transition_event(resource, serving, serving, NOW) is None
    first = transition_event(resource, EMPTY, starting, NOW)
    failed = transition_event(resource, starting, status_of(facts(CRASHED)), NOW)
    assert first is not None
    assert failed is not None
    assert (first["type"], first["reason"]) == ("Normal", "Starting")
    assert (failed["type"], failed["reason"], failed["message"]) == ("Warning", "ModelLoadFailed", "no such model")
