"""Pods as the API server describes them, and what a person is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from diffcache_core.kubernetes.diagnosis import Problem, diagnose
from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.kubernetes.workloads import Workload, serving_workload

JSON = dict[str, Any]
SERVING = Workload("emoji", "spec.serving", "spec.cache.store.volume")
NOW = "2026-11-24T10:00:00Z"


def look(
    workload: Workload, pods: list[JSON], claims: list[JSON], events: list[JSON], now: str = NOW
) -> Problem | None:
    return diagnose(
        workload,
        tuple(map(Pod.model_validate, pods)),
        tuple(map(VolumeClaim.model_validate, claims)),
        tuple(map(Event.model_validate, events)),
        datetime.fromisoformat(now),
    )


def pod(**status: Any) -> JSON:
    return {"metadata": {"name": "emoji-0", "uid": "p"}, "status": status}


def unschedulable(message: str) -> JSON:
    return pod(
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )


def container(state: JSON, last: JSON | None = None, image: str = "serving:1") -> JSON:
    return pod(
        containerStatuses=[{"name": "serving", "image": image, "ready": False, "state": state, "lastState": last or {}}]
    )


def ended(message: str = "", code: int = 2, reason: str = "Error") -> JSON:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


CRASH_LOOP = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
PENDING = {"metadata": {"name": "data-emoji-0"}, "spec": {}, "status": {"phase": "Pending"}}
PENDING_IN_CLASS = PENDING | {"spec": {"storageClassName": "fast"}}


@pytest.mark.parametrize(
    ("one", "claims", "gpu", "reason", "words"),
    [
        (
            unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to deallocate"),
            [],
            "nvidia.com/gpu",
            "InsufficientGPU",
            ["nvidia.com/gpu", "spec.serving.gpu.count"],
        ),
        (
            unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            [PENDING],
            "",
            "VolumePending",
            ["data-emoji-0", "no default", "storageClassName"],
        ),
        (
            unschedulable("0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."),
            [PENDING_IN_CLASS],
            "",
            "VolumePending",
            ["StorageClass fast", "provisioner"],
        ),
        (
            unschedulable('0/1 nodes are available: persistentvolumeclaim "models" not found. preemption: 0/1'),
            [],
            "",
            "ReferenceNotFound",
            ['persistentvolumeclaim "models" not found', "create it"],
        ),
        (unschedulable("0/1 nodes are available: 1 Insufficient cpu."), [], "", "Unschedulable", ["Insufficient cpu"]),
        (
            container({"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "serving:1"'}}),
            [],
            "",
            "ImagePullFailed",
            ["serving:1", "spec.serving.image", "imagePullSecrets"],
        ),
        (container({"waiting": {"reason": "InvalidImageName"}}, image="A B"), [], "", "ImagePullFailed", ["A B"]),
        (
            container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}}),
            [],
            "",
            "ReferenceNotFound",
            ['secret "hub" not found', "create it"],
        ),
        (
            container(CRASH_LOOP, ended("ModelLoadFailed: model bundled://nope: there is none")),
            [],
            "",
            "ModelLoadFailed",
            ["bundled://nope"],
        ),
        (
            container({"running": {}}, ended("DeviceFailed: a CUDA error", code=1)),
            [],
            "",
            "DeviceFailed",
            ["CUDA error"],
        ),
        (container(ended("CudaUnavailable: no CUDA\nhere")), [], "", "CudaUnavailable", ["no CUDA\nhere"]),
        (container(CRASH_LOOP, ended(code=137, reason="OOMKilled")), [], "", "OutOfMemory", ["limits.memory"]),
        (
            container(CRASH_LOOP, ended("Traceback (most recent)")),
            [],
            "",
            "Crashed",
            ["status 2: Traceback", "kubectl logs emoji-0 -c serving --previous"],
        ),
        (
            container({"waiting": {"reason": "RunContainerError"}}, ended("exec: no such file", 128, "StartError")),
            [],
            "",
            "Crashed",
            ["status 128 (StartError): exec: no such file"],
        ),
        (
            container({"waiting": {"reason": "CreateContainerError", "message": "name is in use"}}),
            [],
            "",
            "ContainerNotStarted",
            ["serving is not started: CreateContainerError: name is in use"],
        ),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage."),
            [],
            "",
            "PodEnded",
            ["Evicted: The node was low on resource"],
        ),
    ],
)
def test_a_pod_that_does_not_come_up(one: JSON, claims: list[JSON], gpu: str, reason: str, words: list[str]) -> None:
    problem = look(replace(SERVING, gpu=gpu), [one], claims, [])
    assert problem is not None
    assert problem.reason == reason
    for word in words:
        assert word in problem.message


@pytest.mark.parametrize(
    "one",
    [
        pod(),
        pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]),
        container({"running": {}}, last=None),
        container({"waiting": {"reason": "ContainerCreating"}}),
        container(ended(code=0)),
        {"metadata": {"name": "a", "uid": "b", "deletionTimestamp": NOW}}
        | container(CRASH_LOOP, ended())
        | {"metadata": {"name": "a", "uid": "b", "deletionTimestamp": NOW}},
    ],
)
def test_a_pod_without_a_problem(one: JSON) -> None:
    assert look(SERVING, [one], [], []) is None


def test_a_download_that_is_tried_again_does_not_turn_with_each_try() -> None:
    """It counts as failed until it has run for a while, or the reason would change twice with each try."""
    failed = {"name": "fetch-model", "image": "serving:1", "ready": False, "lastState": ended("DownloadFailed: 503")}
    waiting = pod(initContainerStatuses=[failed | {"state": CRASH_LOOP}])
    running = pod(initContainerStatuses=[failed | {"state": {"running": {"startedAt": "2026-11-24T10:00:00Z"}}}])
    for one, now in ((waiting, "2026-11-24T10:00:00Z"), (running, "2026-11-24T10:00:30Z")):
        problem = look(SERVING, [one], [], [], now)
        assert problem is not None
        assert problem.reason == "DownloadFailed"
    assert look(SERVING, [running], [], [], "2026-11-24T10:05:00Z") is None


@pytest.mark.parametrize(
    ("one", "in_spec"),
    [
        (container(CRASH_LOOP, ended("ModelLoadFailed: nope")), True),
        (container({"waiting": {"reason": "InvalidImageName"}}, image="A B"), True),
        (container({"waiting": {"reason": "ImagePullBackOff"}}), False),
        (container(CRASH_LOOP, ended("VolumeInUse: by another")), False),
        (container(CRASH_LOOP, ended("DownloadFailed: 503")), False),
    ],
)
def test_what_only_a_change_of_the_spec_cures(one: JSON, in_spec: bool) -> None:
    problem = look(SERVING, [one], [], [])
    assert problem is not None
    assert problem.in_spec is in_spec


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ('pods "emoji-0" is forbidden: exceeded quota: q, requested: requests.memory=2Gi', "spec.serving.resources"),
        (
            'pods "emoji-0" is forbidden: failed quota: q: must specify limits.memory for: serving',
            "spec.serving.resources",
        ),
        (
            'pods "emoji-0" is forbidden: maximum memory usage per Container is 512Mi, but limit is 1Gi',
            "spec.serving.resources",
        ),
        (
            'pods "emoji-0" is forbidden: no PriorityClass with name high was found',
            "spec.serving.pod.priorityClassName",
        ),
        (
            'pods "emoji-0" is forbidden: pod rejected: RuntimeClass "nvidia" not found',
            "spec.serving.pod.runtimeClassName",
        ),
        ('pods "emoji-0" is forbidden: violates PodSecurity "restricted:latest": x', "the namespace demands"),
        ('admission webhook "policy" denied the request: label team is missing', "spec.serving.pod.labels"),
        (
            'create Claim data-emoji-0 failed: persistentvolumeclaims "data-emoji-0" is forbidden: exceeded quota',
            "spec.cache.store.volume",
        ),
    ],
)
def test_who_refuses_a_pod_is_told_with_the_field_that_helps(told: str, field: str) -> None:
    problem = look(SERVING, [], [], [event("FailedCreate", told, uid="set")])
    assert problem is not None
    assert field in problem.message
    assert told in problem.message


def event(reason: str, message: str, uid: str = "p", name: str = "emoji") -> JSON:
    about = {"uid": uid, "name": name}
    return {"metadata": {"name": "e"}, "reason": reason, "message": message, "involvedObject": about}


def test_events_say_why_a_mount_fails() -> None:
    waiting = container({"waiting": {"reason": "ContainerCreating"}})
    told = [event("FailedMount", 'MountVolume.SetUp failed for volume "secrets" : secret "milvus" not found')]
    problem = look(SERVING, [waiting], [], told)
    assert problem is not None
    assert problem.reason == "ReferenceNotFound"
    assert look(SERVING, [waiting], [], [event("FailedMount", "x", uid="another")]) is None
    other = look(SERVING, [waiting], [], [event("FailedMount", "timed out")])
    assert other is not None
    assert (other.reason, other.message) == ("VolumeNotMounted", "timed out")


def test_events_say_why_there_is_no_pod() -> None:
    problem = look(SERVING, [], [], [event("FailedCreate", 'violates PodSecurity "restricted"', uid="set")])
    assert problem is not None
    assert problem.reason == "PodRefused"
    assert "PodSecurity" in problem.message
    assert look(SERVING, [], [], []) is None
    assert look(SERVING, [], [], [event("FailedCreate", "quota", name="emoji-milvus")]) is None


def test_a_pod_that_its_node_does_not_let_go() -> None:
    leaving = {
        "metadata": {"name": "emoji-0", "uid": "p", "deletionTimestamp": "2026-11-24T10:00:00Z"},
        "spec": {"nodeName": "gone"},
    }
    assert look(SERVING, [leaving], [], [], now="2026-11-24T10:00:29Z") is None
    problem = look(SERVING, [leaving], [], [], now="2026-11-24T10:00:31Z")
    assert problem is not None
    assert problem.reason == "NodeLost"
    for word in ("node gone", "out-of-service", "kubectl delete pod emoji-0 --force"):
        assert word in problem.message


def test_the_remedy_names_the_block_of_the_workload() -> None:
    killed = container(CRASH_LOOP, ended(code=137, reason="OOMKilled"))
    milvus = Workload("emoji-milvus", "spec.index.standalone", "spec.index.standalone.volume")
    problem = look(milvus, [killed], [], [])
    assert problem is not None
    assert "spec.index.standalone.resources.limits.memory" in problem.message


@pytest.mark.parametrize(
    ("pinned", "chosen", "words"),
    [
        ("x:1", "", "mend spec.serving.image"),
        ("", "x:1", "kubectl diffcache upgrade emoji --image IMAGE"),
        ("", "", "servingImage of the operator's chart"),
    ],
)
def test_the_remedy_of_an_image_names_what_is_set(pinned: str, chosen: str, words: str) -> None:
    workload = serving_workload("emoji", "", pinned, chosen)
    problem = look(workload, [container({"waiting": {"reason": "ErrImagePull"}})], [], [])
    assert problem is not None
    assert words in problem.message
