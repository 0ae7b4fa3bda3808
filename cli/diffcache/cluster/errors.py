"""Converts error output of kubectl to one line that says what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

NO_CLUSTER = re.compile(r"The connection to the server localhost:8080 was refused")
"""The message for kubectl's default address: no cluster is configured."""

_TOLD = re.compile(r"^(error:|Error |Unable to connect|The connection to)", re.IGNORECASE)
_LOG_LINE = re.compile(r"^([IWEF]\d{4} |\s)")  # log lines of klog, and their continuation lines

_CHOOSE = "choose another cluster with --context or --kubeconfig"
_KNOWN: tuple[tuple[str, int, str], ...] = (
    (
        r'diffusioncaches\S* "(?P<name>[^"]+)" not found',
        1,
        "there is no DiffusionCache {name} here: `kubectl diffcache get -A` lists all, -n chooses the namespace",
    ),
    (
        r'namespaces "(?P<name>[^"]+)" not found',
        1,
        "there is no namespace {name}: give another with -n, `kubectl get namespaces` lists all",
    ),
    (
        r"doesn't have a resource type \"diffusioncaches\"|Resource=diffusioncaches\": the server could not find",
        1,
        f"diffcache is not installed in this cluster: install its chart with its CRD, or {_CHOOSE}",
    ),
    (
        r"\(Forbidden\): .*?(?P<what>User .*)",
        1,
        "not allowed: {what}: ask for that right, or choose another namespace with -n",
    ),
    (
        r'context was not found for specified context: (?P<name>.*)|context "(?P<other>[^"]+)" does not exist',
        2,
        "there is no context {name}{other}: `kubectl config get-contexts` lists them, --context chooses one",
    ),
    (
        r"error: stat (?P<path>.+?): (?P<why>.+)",
        2,
        "the kubeconfig {path} cannot be read ({why}): give another with --kubeconfig or KUBECONFIG",
    ),
    (
        r'error loading config file "(?P<path>[^"]+)"',
        2,
        "{path} is not a kubeconfig: give another with --kubeconfig or KUBECONFIG",
    ),
    (
        r"must be logged in to the server|Unauthorized|^error: EOF$",  # EOF: kubectl asked for a user name in vain
        1,
        f"the cluster does not accept the kubeconfig's credentials: log in again, or {_CHOOSE}",
    ),
    (
        r"getting credentials: (?P<why>.+)",
        1,
        "the kubeconfig's login program failed ({why}): install or repair it, then try `kubectl get namespaces`",
    ),
    (
        r"failed to verify certificate: (?P<why>.+)",
        1,
        "the API server's certificate is not trusted ({why}): mend certificate-authority in the kubeconfig",
    ),
    (
        r"The connection to the server (?P<where>\S+) was refused|Unable to connect to the server: (?P<why>.+)",
        1,
        f"the cluster cannot be reached ({{where}}{{why}}): is it up? Start it, or {_CHOOSE}",
    ),
)


class ClusterError(Exception):
    """The command failed because of the cluster or of what is in it. The message says what to do.

    `status` is the exit status.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def explain(stderr: str, contexts: Sequence[str] = ()) -> ClusterError:
    """Returns the error for kubectl's output. `contexts` are those of the kubeconfig, for a user who chose none."""
    if NO_CLUSTER.search(stderr):
        remedy = (
            f"choose one with --context ({', '.join(contexts)})"
            if contexts
            else "name a kubeconfig with --kubeconfig or KUBECONFIG"
        )
        return ClusterError(f"kubectl knows no cluster: {remedy}", 2)
    line = _verdict(stderr)
    for pattern, status, message in _KNOWN:
        if (match := re.search(pattern, line)) is not None:
            parts = {name: part or "" for name, part in match.groupdict().items()}
            return ClusterError(message.format(**parts), status)
    return ClusterError(f"kubectl failed: {line.removeprefix('error: ') or 'it gave no reason'}")


def _verdict(stderr: str) -> str:
    """Returns the line with the reason, without kubectl's log lines and advice."""
    lines = [line for line in stderr.splitlines() if line.strip() and not _LOG_LINE.match(line)]
    return next((line for line in lines if _TOLD.match(line)), lines[-1] if lines else "").strip()
