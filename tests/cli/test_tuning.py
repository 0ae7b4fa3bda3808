"""What the tuner has done and why, as a person reads it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from rich.console import Console

from diffcache.cluster.objects import Resource, parse_object
from diffcache.cluster.reading import Found, Host
from diffcache.cluster.report import layout as status_page
from diffcache.tuning_report import facts, layout
from diffcache_core.resource.status import Condition, TuningStatus
from tests.cli.test_plugin import replay as replay  # the fixture

Diffcache = Callable[..., CompletedProcess[str]]
NOW = datetime.fromisoformat("2026-11-24T11:19:00Z")
RECORD: dict[str, Any] = {
    "revision": 2,
    "basedOn": "0123456789ab",
    "capacity": "96Mi",
    "levels": [{"skipPercent": 20, "similarity": "0.85"}, {"skipPercent": 40, "similarity": "0.9"}],
    "windowStart": "2026-11-24T11:09:00Z",
    "measuredSince": "2026-11-23T11:19:00Z",
    "decision": "AtRest: levels and capacity are where the measurements put them",
    "history": [
        {
            "time": "2026-11-24T11:08:00Z",
            "revision": 2,
            "reason": "Loosened",
            "message": "levels 20% from 0.9 to 0.85: comparisons prove it",
            "capacity": "96Mi",
            "levels": [{"skipPercent": 20, "similarity": "0.85"}],
            "inputs": {"pairs": "412", "p95Seconds": "3.1"},
        },
        {"time": "?", "revision": 1, "reason": "Grown", "message": "\x1b[2J[bold]", "capacity": "96Mi"},
    ],
}
CONDITION = {
    "type": "TuningActive",
    "status": "True",
    "reason": "AtRest",
    "message": "levels and capacity are where the measurements put them",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-24T10:19:00Z",
}


def shown(mode: str, record: dict[str, Any], condition: dict[str, Any] | None = None, width: int = 100) -> str:
    page = Console(file=io.StringIO(), width=width)
    told = None if condition is None else Condition.model_validate(condition)
    page.print(layout("emoji", mode, TuningStatus.model_validate(record), NOW, told))
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


def test_the_page() -> None:
    page = shown("Auto", RECORD, CONDITION)
    for words in (
        "emoji: tuning in mode Auto, revision 2",
        "AtRest: levels and capacity are where",
        "TuningActive True, AtRest, since 1 h",
        "in force     capacity 96Mi; levels 20% from 0.85, 40% from 0.9",
        "figures      of the last 10 min",
        "comparisons  of the last 1 d",
        "Loosened, revision 2, 11 min ago",
        "levels 20% from 0.9 to 0.85: comparisons prove it",
        "from         pairs 412, p95Seconds 3.1",
        "Grown, revision 1, ? ago",
        "\\x1b[2J[bold]",
        "from         no figures",
    ):
        assert words in page, words
    assert "recommended  capacity 96Mi" in shown("Recommend", RECORD)
    assert "decided      capacity 96Mi" in shown("", RECORD)  # a local server, whose mode is not known


def test_the_page_of_one_that_has_decided_nothing() -> None:
    page = shown("Auto", {"revision": 0})
    assert "what the resource itself says" in page
    assert "Nothing has been decided yet." in page


def test_facts_are_the_record() -> None:
    told = facts("emoji", "Auto", TuningStatus.model_validate(RECORD), Condition.model_validate(CONDITION))
    assert json.loads(json.dumps(told)) == told
    assert told["history"][0]["inputs"]["pairs"] == "412"
    assert told["active"]["reason"] == "AtRest"


def tuned(replay: Path) -> dict[str, Any]:
    resource: dict[str, Any] = json.loads((replay / "diffusioncaches.json").read_text())
    resource["spec"]["tuning"] = {"mode": "Auto"}
    resource["spec"]["autoscaling"] = {"mode": "Operator", "minReplicas": 1, "maxReplicas": 4}
    resource["status"]["tuning"] = RECORD
    resource["status"]["autoscaling"] = {"replicas": 1, "message": "from 2 to 1: backlog 0.1 s a pod"}
    resource["status"]["conditions"].append(CONDITION)
    (replay / "diffusioncaches.json").write_text(json.dumps(resource))
    return resource


def test_of_a_cluster(replay: Path, kubectl_diffcache: Diffcache) -> None:
    off = kubectl_diffcache("tuning", "emoji")
    assert off.returncode == 1
    assert "emoji is not tuned: set spec.tuning.mode" in off.stderr
    tuned(replay)
    done = kubectl_diffcache("tuning", "emoji")
    assert done.returncode == 0, done.stderr
    assert "Loosened, revision 2" in done.stdout
    told = json.loads(kubectl_diffcache("tuning", "emoji", "-o", "json").stdout)
    assert (told["mode"], told["revision"], told["active"]["status"]) == ("Auto", 2, "True")
    row = kubectl_diffcache("get", "emoji").stdout.splitlines()[1]
    assert "Loosened" in row


def test_the_status_page_tells_of_both_loops(replay: Path) -> None:
    resource = parse_object(Resource, tuned(replay))
    page = Console(file=io.StringIO(), width=160)
    page.print(status_page(Host(resource, Found(), Found(), Found()), NOW))
    assert isinstance(page.file, io.StringIO)
    text = page.file.getvalue()
    assert "1 ready of 1 wanted (1 to 4 by the operator; last from 2 to 1: backlog 0.1 s a pod)" in text
    assert "Auto: AtRest: levels and capacity are where the measurements put them" in text
    assert "of 96Mi" in text


def test_a_local_server_that_does_not_tune(up: Any, diffcache: Diffcache) -> None:
    done = diffcache("tuning", "--admin", f"127.0.0.1:{up.admin_port}")
    assert done.returncode == 1
    assert "set spec.tuning.mode" in done.stderr
