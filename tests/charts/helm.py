"""The chart as Helm 3 and Helm 4 see it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/diffcache"
HELMS = ("helm3", "helm4")
JSON = dict[str, Any]


class Chart:
    """Renders, once for equal arguments."""

    def __init__(self, folder: Path = ROOT / "build/helm") -> None:
        self._folder = folder

    @cache  # noqa: B019 - one object a session
    def run(self, helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._folder / helm, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(self._folder)},  # no kubeconfig, nobody's settings
        )

    def render(
        self, *arguments: str, helm: str = "helm4", name: str = "diffcache", namespace: str = "system"
    ) -> list[JSON]:
        result = self.run(helm, "template", name, str(CHART), "--namespace", namespace, *arguments)
        assert result.returncode == 0, result.stderr
        objects = [one for one in yaml.safe_load_all(result.stdout) if one]
        return sorted(objects, key=identity)

    def refusal(self, *arguments: str, helm: str = "helm4") -> str:
        result = self.run(helm, "template", "diffcache", str(CHART), *arguments)
        assert result.returncode != 0, f"accepted: {arguments}"
        return result.stderr


def identity(one: JSON) -> tuple[str, str, str]:
    return one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]


def of_kind(objects: list[JSON], *kinds: str) -> list[JSON]:
    return [one for one in objects if one["kind"] in kinds]
