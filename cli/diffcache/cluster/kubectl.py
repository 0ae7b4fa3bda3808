"""Runs kubectl as a subprocess. All access to the API server uses it, because it knows the user's contexts, logins and
proxies."""

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
"""The full name, because another group might have the same short name."""

REQUEST_SECONDS = 20
"""Timeout of one call to the API server. With a higher value users only wait longer for a server that is down."""


@dataclass(frozen=True)
class Kubectl:
    """The chosen cluster and namespace. For an empty field the kubeconfig decides."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    @property
    def flags(self) -> list[str]:
        """Returns the options for kubectl, with `=`, so that no value is read as another option."""
        return [f"--{name}={value}" for name, value in vars(self).items() if value]

    def command(self, *words: str) -> list[str]:
        program = shlex.split(os.environ.get("KUBECTL", "")) or ["kubectl"]  # KUBECTL may be `minikube kubectl --`
        return [*program, *self.flags, *words]

    def advice(self, command: str) -> str:
        """Returns a command for the user to run next, with the same cluster and namespace."""
        return shlex.join([*command.split(), *self.flags])

    def run(self, *words: str) -> str:
        """Runs kubectl and returns its standard output. Raises ClusterError if it fails."""
        # No standard input: the user would not see it if kubectl asked for a password.
        done = start(subprocess.run, self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise explain(done.stderr, self._contexts() if NO_CLUSTER.search(done.stderr) else ())
        return str(done.stdout)

    def read(self, *words: str) -> Any:
        """Returns the JSON answer of `kubectl get`. Raises ClusterError if it fails."""
        text = self.run("get", "--output=json", f"--request-timeout={REQUEST_SECONDS}s", *words)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ClusterError("kubectl did not answer in JSON: is what KUBECTL or the PATH name really it?") from None

    def _contexts(self) -> list[str]:
        command = self.command("config", "get-contexts", "--output=name")
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()


def start(how: Any, command: list[str], **options: Any) -> Any:
    """Starts kubectl; `how` is `subprocess.run` or `Popen`. Raises ClusterError if kubectl cannot be started."""
    try:
        return how(command, **options)
    except OSError as error:
        raise ClusterError(
            f"{command[0]} cannot be started ({error.strerror}): install kubectl on the PATH, or name it in KUBECTL", 2
        ) from None


def checked_name(name: str) -> str:
    """Returns `name`. Raises ClusterError if it is not a valid name of a DiffusionCache, because kubectl might read it
    as something else."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ClusterError(
            f"{name!r} is no name of a DiffusionCache: `kubectl diffcache get` lists them, `-A` in all namespaces", 2
        )
    return name
