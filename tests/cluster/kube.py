"""A real cluster, driven as a person would: with kubectl."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

JSON = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv" / "bin"


class CommandFailed(AssertionError):
    def __init__(self, command: list[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        self.returncode, self.text = done.returncode, done.stdout + done.stderr


def run(command: list[str], text: str | None = None, timeout: float = 300, **options: Any) -> str:
    """Standard output. Raises CommandFailed with what was printed."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT, **options
    )
    if done.returncode != 0:
        raise CommandFailed(command, done)
    return done.stdout


def eventually(look: Callable[[], T], within: float = 60, every: float = 0.5, what: str = "") -> T:
    """The first true answer of `look`. Fails with its last answer, or its last error, after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        answer: Any
        try:
            answer = look()
        except (AssertionError, KeyError, IndexError, TypeError) as error:
            answer = None
            last = f"{type(error).__name__}: {error}"
        else:
            if answer:
                return answer
            last = repr(answer)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what or 'what was waited for'}; last: {last[:3000]}")
        time.sleep(every)


@dataclass(frozen=True)
class Kube:
    """kubectl in one namespace."""

    namespace: str = "default"
    flags: tuple[str, ...] = field(default=())

    def within(self, namespace: str) -> Kube:
        return Kube(namespace, self.flags)

    def __call__(self, *arguments: str, text: str | None = None, timeout: float = 300) -> str:
        return run([str(BIN / "kubectl"), "-n", self.namespace, *self.flags, *arguments], text, timeout)

    def refused(self, *arguments: str, text: str | None = None) -> str:
        """What a command says that must fail."""
        try:
            self(*arguments, text=text)
        except CommandFailed as failure:
            return failure.text
        raise AssertionError(f"was accepted: {arguments} {text}")

    def apply(self, *objects: JSON) -> None:
        self("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str) -> JSON:
        return json.loads(self("get", kind, name, "-o", "json"))

    def list(self, kind: str, selector: str = "", *flags: str) -> list[JSON]:
        chosen = ["-l", selector] if selector else []
        return json.loads(self("get", kind, *chosen, *flags, "-o", "json"))["items"]

    def exists(self, kind: str, name: str) -> bool:
        return bool(self("get", kind, name, "--ignore-not-found", "-o", "name").strip())

    def patch(self, kind: str, name: str, patch: JSON, *flags: str) -> None:
        self("patch", kind, name, "--type=merge", "-p", json.dumps(patch), *flags)

    def condition(self, name: str, kind: str) -> JSON | None:
        """Of a DiffusionCache, if it is of the current generation."""
        resource = self.get("diffusioncache", name)
        status = resource.get("status", {})
        if status.get("observedGeneration") != resource["metadata"]["generation"]:
            return None
        return next((one for one in status.get("conditions", []) if one["type"] == kind), None)

    def wait_ready(self, name: str, within: float = 240) -> None:
        eventually(lambda: self._is_ready(name), within, what=f"DiffusionCache {name} Ready")

    def _is_ready(self, name: str) -> bool:
        condition = self.condition(name, "Ready")
        assert condition is not None, "not observed yet"
        assert condition["status"] == "True", condition
        return True

    def wait_reason(self, name: str, reason: str, kind: str = "Ready", within: float = 120) -> str:
        """The message of the condition once it has this reason."""

        def look() -> str:
            condition = self.condition(name, kind)
            assert condition is not None, "no such condition yet"
            assert condition["reason"] == reason, condition
            return str(condition["message"])

        return eventually(look, within, what=f"{name}: {kind} because of {reason}")


def cache(name: str = "emoji", **spec: Any) -> JSON:
    """A DiffusionCache that draws in little time on little memory."""
    model = {"source": "bundled://emoji", "steps": 8, "guidance": "3.0"} | spec.pop("model", {})
    return {
        "apiVersion": "diffcache.io/v1alpha1",
        "kind": "DiffusionCache",
        "metadata": {"name": name},
        "spec": {"model": model} | spec,
    }
