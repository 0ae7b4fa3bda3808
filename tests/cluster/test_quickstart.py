"""The README's cluster quickstart, in its own words; and what a newcomer does next."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.cluster.conftest import RELEASE, SYSTEM
from tests.cluster.kube import ROOT, Kube, eventually, run
from tests.cluster.pods import draw, serving_pod, start_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

README = (ROOT / "README.md").read_text()
SECTION = README.split("## On a cluster")[1].split("\n## ")[0]
FENCES = re.findall(r"```console\n(.*?)```", SECTION, re.DOTALL)
COMMANDS = FENCES[1].strip().splitlines()


@pytest.fixture
def shell(kube: Kube, helm: str, tmp_path: Path) -> dict[str, str]:
    """An environment in which the README's `helm` is the tests' one; a release that is there goes first."""
    (tmp_path / "helm").symlink_to(helm)
    if RELEASE in run([helm, "list", "-n", SYSTEM, "-q"]):
        run([helm, "uninstall", RELEASE, "-n", SYSTEM, "--wait"])
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_five_commands_to_an_approximate_picture(kube: Kube, shell: dict[str, str], tmp_path: Path) -> None:
    assert len(COMMANDS) <= 5
    outputs = []
    for line in COMMANDS:
        words = [str(tmp_path / word) if word.endswith(".png") else word for word in shlex.split(line)]
        outputs.append(run(words, timeout=400, env=shell))
    assert outputs[-1].startswith("APPROXIMATE")
    assert (tmp_path / "a.png").stat().st_size > 0
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "a.png").read_bytes()

    start_client(kube)  # a pod of its own, which knows nothing but the Service's name
    try:
        assert draw(kube, "green apple, noto style", cache="emoji") == ["APPROXIMATE"]
        the_pod_is_killed(kube)
        eventually(lambda: figures(kube), 120, what="the figures of two requests after the kill")
    finally:
        kube("delete", "pod", "client", "--now")
        kube("delete", "-f", "examples/quickstart.yaml")


def the_pod_is_killed(kube: Kube) -> None:
    """The next one finds the cache as it was, and did not have to crash while it waited for the volume."""
    old = serving_pod(kube)["metadata"]["uid"]
    kube("exec", "emoji-0", "--", "python", "-c", "import os; os.kill(1, 15)")  # its server drains and ends
    eventually(lambda: serving_pod(kube)["status"]["containerStatuses"][0]["restartCount"] == 1, 60)
    kube("delete", "pod", "emoji-0", "--grace-period=0", "--force")  # no drain, the new pod meets the old process
    new = serving_pod(kube, other_than=old)
    assert draw(kube, "red apple, noto style") == ["APPROXIMATE"]
    assert new["status"]["containerStatuses"][0]["restartCount"] == 0


def figures(kube: Kube) -> bool:
    cache = kube.get("diffusioncache", "emoji")["status"]["cache"]
    return bool(cache["entries"] >= 3 and cache["stepsSavedRatio"] not in ("", "0.000"))
