"""kubectl as a subprocess: the only way to the API server. It knows the user's contexts, logins and proxies."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

from diffcache.cluster.errors import NO_CLUSTER, ClusterError, explain
from diffcache_core.names import GROUP, PLURAL
from diffcache_core.resource.spec import NAME_PATTERN

RESOURCE = f"{PLURAL}.{GROUP}"
"""In full: another group might have the short name, too."""

REQUEST_SECONDS = 20
"""For one answer of the API server. More only lets somebody wait longer for one that is down."""


@dataclass(frozen=True)
class Kubectl:
    """Empty: as the kubeconfig says."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    @property
    def flags(self) -> list[str]:
        """With `=`, so that no value can be taken for another option."""
        return [f"--{name}={value}" for name, value in vars(self).items() if value]

    def command(self, *words: str) -> list[str]:
        program = shlex.split(os.environ.get("KUBECTL", "")) or ["kubectl"]  # may be `minikube kubectl --`
        return [*program, *self.flags, *words]

    def advice(self, command: str) -> str:
        """A command to run next, for the same cluster and namespace."""
        return shlex.join([*command.split(), *self.flags])

    def run(self, *words: str) -> str:
        """Its standard output. Raises ClusterError."""
        # Without standard input: asked for a password there, nobody would see the question.
        done = start(subprocess.run, self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise explain(done.stderr, self._contexts() if NO_CLUSTER.search(done.stderr) else ())
        return str(done.stdout)

    def read(self, *words: str) -> Any:
        """What `kubectl get` answers, as JSON. Raises ClusterError."""
        text = self.run("get", "--output=json", f"--request-timeout={REQUEST_SECONDS}s", *words)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ClusterError("kubectl did not answer in JSON: is what KUBECTL or the PATH name really it?") from None

    def _contexts(self) -> list[str]:
        command = self.command("config", "get-contexts", "--output=name")
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()


def start(how: Any, command: list[str], **options: Any) -> Any:
    """`subprocess.run` or `Popen` of kubectl. Raises ClusterError if there is none."""
    try:
        return how(command, **options)
    except OSError as error:
        raise ClusterError(
            f"{command[0]} cannot be started ({error.strerror}): install kubectl on the PATH, or name it in KUBECTL", 2
        ) from None


def checked_name(name: str) -> str:
    """Raises ClusterError for what no DiffusionCache can be called, and kubectl might take for something else."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ClusterError(
            f"{name!r} is no name of a DiffusionCache: `kubectl diffcache get` lists them, `-A` in all namespaces", 2
        )
    return name
