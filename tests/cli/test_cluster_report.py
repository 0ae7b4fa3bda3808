"""From kubectl's JSON (recorded from a real cluster) to what is said of a resource."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diffcache.cluster.errors import ClusterError
from diffcache.cluster.objects import Resource, parse_list, parse_object
from diffcache.cluster.pods import choose_pod, ready_containers, restarts, trouble
from diffcache.cluster.reading import Found, Host
from diffcache.cluster.report import facts, layout
from diffcache.cluster.table import columns, row
from diffcache.commands.cluster.upgrade import next_image
from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim

NOW = datetime.fromisoformat("2026-11-24T11:19:00Z")


def recorded(name: str) -> Any:
    return json.loads((Path(__file__).parent / "recorded" / f"{name}.json").read_text())


def resource(status: dict[str, Any] | None = None, **serving: Any) -> Resource:
    """The recorded one, with some of its status and of spec.serving replaced."""
    answer = recorded("diffusioncaches")
    answer["status"] = {**answer["status"], **(status or {})}
    answer["spec"]["serving"] |= serving
    return parse_object(Resource, answer)


def ready(status: str, reason: str, message: str) -> dict[str, Any]:
    times = {"observedGeneration": 1, "lastTransitionTime": "2026-11-24T11:05:00Z"}
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message, **times}]}


UNSEEN = {"observedGeneration": -1, "conditions": [], "readyReplicas": 0, "endpoint": "", "cache": None, "serving": {}}


def test_rows() -> None:
    cells = dict(zip(columns(False), row(resource(), NOW, False), strict=True))
    assert cells == {
        "NAME": "emoji",
        "READY": "True",
        "REASON": "Serving",
        "SSR": "0.271",
        "HIT": "0.44",
        "ENTRIES": 120,
        "REPLICAS": "1/1",
        "TUNED": "-",
        "ENDPOINT": "emoji.cli-a.svc:50051",
        "AGE": "16 min",
    }
    assert row(resource(UNSEEN), NOW, True) == (
        *("cli-a", "emoji", "Unknown", "NotSeenYet", "-", "-", "-", "0/1", "-", "-", "16 min"),
    )


def test_ready_means_ready_for_the_present_spec() -> None:
    assert resource().is_ready
    assert not resource({"observedGeneration": 0}).is_ready
    assert not resource(ready("False", "Starting", "the pod starts")).is_ready
    assert not resource(UNSEEN).is_ready


def test_what_is_the_matter_with_a_pod() -> None:
    found = {pod.metadata.name: pod for pod in parse_list(Pod, recorded("trouble"))}
    told = {name: trouble(pod, resource(), (), NOW) for name, pod in found.items()}
    assert told["pull"].startswith(
        "ImagePullFailed: the image diffcache.test/no-such:1 cannot be had: `kubectl diffcache "
    )
    assert 'Back-off pulling image "diffcache.test/no-such:1"' in told["pull"]
    assert told["secret"].startswith('ReferenceNotFound: secret "none" not found: create it')
    assert told["unscheduled"].startswith("Unschedulable: no node takes the pod: see spec.serving.resources")
    assert "0/1 nodes are available" in told["unscheduled"]
    assert told["crash"].startswith("Crashed: serving ended with status 1: ")
    assert "open /nope: no such file" in told["crash"]
    assert told["nocmd"].startswith("Crashed: serving ended with status 128 (StartError): failed to create containerd")
    assert (ready_containers(found["crash"]), restarts(found["crash"])) == ("0/1", 3)
    (fine,) = parse_list(Pod, recorded("pods"))
    assert (trouble(fine, resource(), (), NOW), ready_containers(fine), restarts(fine)) == ("", "1/1", 0)


@pytest.mark.parametrize(
    ("status", "replicas", "words"),
    [
        (UNSEEN, 1, ["no operator has looked at emoji"]),
        (
            ready("False", "ModelLoadFailed", "no folder /m: mount it."),
            1,
            ["ModelLoadFailed: no folder /m: mount it. M"],
        ),
        (ready("True", "ScaledToZero", "no pod is wanted"), 0, ["scaled to zero", "--replicas=1"]),
        (ready("True", "Serving", "1 of 1 pods serve"), 1, ["no pod of emoji is ready at the moment", "STATUS"]),
    ],
)
def test_why_there_is_no_pod_to_ask(status: dict[str, Any], replicas: int, words: list[str]) -> None:
    with pytest.raises(ClusterError) as caught:
        choose_pod(resource(status, replicas=replicas), parse_list(Pod, recorded("trouble")), "STATUS", NOW)
    for word in words:
        assert word in str(caught.value)


def test_a_ready_serving_pod_is_asked_and_no_other() -> None:
    pods = recorded("pods")
    assert choose_pod(resource(), parse_list(Pod, pods), "STATUS", NOW) == "emoji-0"
    pods["items"][0]["metadata"]["labels"]["app.kubernetes.io/component"] = "index"
    with pytest.raises(ClusterError):
        choose_pod(resource(), parse_list(Pod, pods), "STATUS", NOW)


def test_what_the_pod_says_is_told_unless_the_operator_has_said_it() -> None:
    pods = recorded("trouble")
    pods["items"] = [pod for pod in pods["items"] if pod["metadata"]["name"] == "secret"]
    pods["items"][0]["metadata"]["labels"]["app.kubernetes.io/component"] = "serving"
    whole = 'secret "none" not found: create it in this namespace, or mend the reference'
    for message, says_it in (("the pod starts", True), (whole, False)):
        with pytest.raises(ClusterError) as caught:
            choose_pod(resource(ready("False", "Starting", message)), parse_list(Pod, pods), "STATUS", NOW)
        assert ("secret: ReferenceNotFound" in str(caught.value)) is says_it


def test_a_pod_that_goes_is_not_asked() -> None:
    pods = recorded("pods")
    pods["items"][0]["metadata"]["deletionTimestamp"] = "2026-11-24T11:18:00Z"
    with pytest.raises(ClusterError):
        choose_pod(resource(), parse_list(Pod, pods), "STATUS", NOW)


def around(one: Resource, pods: Sequence[Pod] | None = None) -> Host:
    return Host(
        one,
        Found(parse_list(Pod, recorded("pods")) if pods is None else pods),
        Found(parse_list(VolumeClaim, recorded("persistentvolumeclaims"))),
        Found(parse_list(Event, recorded("events"))),
    )


def shown(surroundings: Host, width: int = 100) -> str:
    page = Console(file=io.StringIO(), width=width)
    page.print(layout(surroundings, NOW))
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


def test_the_page_of_a_ready_resource() -> None:
    page = shown(around(resource()))
    for words in (
        "emoji in cli-a, 16 min old: ready (Serving)",
        "bundled://emoji",
        "emoji.cli-a.svc:50051",
        "1 ready of 1 wanted",
        "docker.io/diffcache/serving:0.1.0 (recorded)",
        "docker.io/diffcache/serving:0.2.0: `kubectl diffcache upgrade emoji` moves to it",
        "steps saved ratio 0.271, hit ratio 0.44, 120 entries, 3.2 MiB of 64Mi",
        "IndexReady      False   Down  since 14 min",
        "the pods do not reach the index: it is usually restarting",
        "emoji-0  1/1    Running  0         node0  14 min",
        "data-emoji-0  Pending  10Gi  standard",
        "9 min ago  Normal  Starting  the pod starts and loads its model",
    ):
        assert words in page
    assert max(map(len, shown(around(resource()), width=60).splitlines())) <= 60


def test_the_page_of_one_in_trouble() -> None:
    message = "no node has enough free nvidia.com/gpu: add nodes"
    page = shown(around(resource(ready("False", "InsufficientGPU", message)), parse_list(Pod, recorded("trouble"))))
    assert "not ready (InsufficientGPU)" in page
    assert message in page
    assert 'secret ReferenceNotFound: secret "none" not found: create it' in page


def test_the_page_tells_once_what_a_condition_says_of_a_pod() -> None:
    pods = parse_list(Pod, recorded("trouble"))
    told = 'secret "none" not found: create it in this namespace, or mend the reference'
    page = shown(around(resource(ready("False", "ReferenceNotFound", told)), pods))
    assert page.count('secret "none" not found') == 1


@pytest.mark.parametrize(
    ("component", "block"),
    [("serving", "spec.serving"), ("index", "spec.index.standalone"), ("ledger", "spec.cache.ledger.provisioned")],
)
def test_the_remedy_is_about_the_pods_own_block(component: str, block: str) -> None:
    (one,) = [pod for pod in recorded("trouble")["items"] if pod["metadata"]["name"] == "unscheduled"]
    one["metadata"]["labels"]["app.kubernetes.io/component"] = component
    assert f"see {block}.resources and {block}.pod" in trouble(parse_object(Pod, one), resource(), (), NOW)


def test_what_passes_by_itself_is_told_too() -> None:
    pods = recorded("pods")
    assert told_of(pods) == ""
    (one,) = pods["items"]
    one["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert told_of(pods) == "the last run ended with status 137 (OOMKilled)"
    one["status"]["conditions"], one["status"]["containerStatuses"] = [], []
    assert told_of(pods) == "is not ready yet"
    one["metadata"]["deletionTimestamp"] = NOW.isoformat()
    assert told_of(pods) == "is being deleted"


def told_of(pods: Any) -> str:
    return trouble(parse_list(Pod, pods)[0], resource(), (), NOW)


def test_the_page_of_one_that_nobody_has_seen_and_of_a_late_operator() -> None:
    empty = Host(resource(UNSEEN), Found(), Found(), Found(missing="not allowed: ask"))
    page = shown(empty)
    assert "no operator has looked at it yet" in page
    assert "no figures yet, capacity 64Mi" in page
    assert "not shown: not allowed: ask" in page
    assert "generation 1, seen 0" in shown(around(resource({"observedGeneration": 0}))).replace("\n", " ")


def test_a_message_is_no_markup_and_no_terminal_command() -> None:
    page = shown(around(resource(ready("False", "Crashed", "[bold]x[/red] \x1b[2J\nsecond line"))))
    assert "[bold]x[/red] \\x1b[2J\n" in page
    assert "\n    second line" in page


def test_facts_for_programs() -> None:
    told = facts(Host(resource(), Found(missing="why"), Found(), Found(parse_list(Event, recorded("events")))), NOW)
    assert json.loads(json.dumps(told)) == told
    assert (told["ready"], told["not_readable"], told["cache"]["entries"]) == (True, {"pods": "why"}, 120)
    assert told["events"][0]["reason"] == "Starting"
    assert facts(around(resource()), NOW)["pods"][0]["name"] == "emoji-0"


def test_a_newer_status_is_read_and_a_strange_one_refused_plainly() -> None:
    assert resource({"tuning": {"revision": 3}}).is_ready
    with pytest.raises(ClusterError, match=r"Resource has a status\.replicas that this version does not understand"):
        resource({"replicas": "many"})


def test_the_image_to_move_to() -> None:
    assert next_image(resource(), "") == "docker.io/diffcache/serving:0.2.0"
    assert next_image(resource(), "mine:1") == "mine:1"
    assert next_image(resource({"serving": {"image": "a:1"}}), "") == ""
    with pytest.raises(ClusterError, match=r"spec\.serving\.image of emoji names pinned:1"):
        next_image(resource(image="pinned:1"), "")
