"""`kubectl diffcache`, called by kubectl, on a cluster with the operator in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.kube import BIN, CommandFailed, Kube, cache, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

Plugin = Callable[..., str]


@pytest.fixture
def plugin(operator: Kube, namespace: Kube) -> Plugin:
    """Its standard output. Raises CommandFailed."""
    return lambda *words: run([str(BIN / "kubectl"), "diffcache", *words, "-n", namespace.namespace])


def failed(plugin: Plugin, *words: str) -> CommandFailed:
    with pytest.raises(CommandFailed) as caught:
        plugin(*words)
    assert "Traceback" not in caught.value.text
    return caught.value


def test_from_nothing_to_a_hit(plugin: Plugin, namespace: Kube, tmp_path: Path) -> None:
    image = ("-o", str(tmp_path / "x.png"))
    assert "there is no DiffusionCache emoji" in failed(plugin, "generate", "emoji", "cat", *image).text
    namespace.apply(cache())
    assert failed(plugin, "status", "emoji").returncode == 1
    assert "emoji" in failed(plugin, "generate", "emoji", "cat", *image).text
    namespace.wait_ready("emoji")
    assert "ready (Serving)" in plugin("status", "emoji")
    assert "Serving" in plugin("get")
    assert plugin("generate", "emoji", "red apple, noto style", *image).startswith("MISS")
    assert plugin("generate", "emoji", "red apple, flat style", *image).startswith("APPROXIMATE")
    assert int(json.loads(plugin("stats", "emoji", "-o", "json"))["approximate"]) == 1
    assert "red apple, noto style" in plugin("entries", "emoji")
    assert "purged 2 entries" in plugin("purge", "emoji", "--all")


def test_upgrade_moves_the_image_there_and_back(plugin: Plugin, namespace: Kube) -> None:
    namespace.apply(cache())
    namespace.wait_ready("emoji")
    image = namespace.get("diffusioncache", "emoji")["status"]["serving"]["image"]
    assert "nothing to do" in plugin("upgrade", "emoji")
    plugin("upgrade", "emoji", "--image", "diffcache.test/none:1")
    namespace.wait_reason("emoji", "ImagePullFailed")
    status = failed(plugin, "status", "emoji")
    assert (status.returncode, "diffcache.test/none:1" in status.text) == (1, True)
    plugin("upgrade", "emoji", "--image", image)
    namespace.wait_ready("emoji")
