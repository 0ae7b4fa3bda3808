"""Runs commands that call a server against a pod of a DiffusionCache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffcache.commands import hints
from diffcache.commands.cluster.options import ContextOption, KubeconfigOption, NameArgument, NamespaceOption
from diffcache.connections import CLOSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffcache.cluster.kubectl import Kubectl


_OF_THE_WAY = ("127.0.0.1", "Socket closed", "Stream removed", CLOSED)
"""Texts of gRPC about this end of the port-forward, which do not help the user; messages from the server do."""


def at_pod(command: Callable[..., None], port: int, address: str, without: Sequence[str] = ()) -> Callable[..., None]:
    """Returns the same command, with the name of a DiffusionCache instead of an address.

    Args:
        command: one of the local commands.
        port: the port of the pod that the command calls.
        address: the parameter of the command that takes HOST:PORT.
        without: parameters that make no sense with `kubectl port-forward`.
    """

    def run(name: str, namespace: str, context: str, kubeconfig: str, **options: Any) -> None:
        from diffcache.cluster.kubectl import Kubectl

        kubectl = Kubectl(namespace, context, kubeconfig)
        with _pod_port(kubectl, name, port) as where, hints.for_cluster(lambda words: kubectl.advice(words), name):
            command(**{address: where}, **options)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    own = inspect.signature(command, eval_str=True).parameters
    kept = [parameter for parameter in own.values() if parameter.name not in (address, *without)]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
        [
            _keyword("name", NameArgument),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept),
            _keyword("namespace", NamespaceOption, ""),
            _keyword("context", ContextOption, ""),
            _keyword("kubeconfig", KubeconfigOption, ""),
        ]
    )
    return run


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@contextmanager
def _pod_port(kubectl: Kubectl, name: str, port: int) -> Iterator[str]:
    """Yields HOST:PORT that leads to a ready pod. Raises ClusterError, also if the pod disappears meanwhile."""
    from diffcache.cluster.errors import ClusterError
    from diffcache.cluster.pods import choose_pod
    from diffcache.cluster.port_forward import port_forward
    from diffcache.cluster.reading import read_pods, read_resource
    from diffcache.wire import GenerationError

    status = kubectl.advice(f"kubectl diffcache status {name}")
    pod = choose_pod(read_resource(kubectl, name), read_pods(kubectl, name), status, datetime.now(UTC))
    try:
        with port_forward(kubectl, pod, port) as address:
            yield address
    except GenerationError as error:
        if error.code != "UNAVAILABLE":
            raise
        detail = "" if any(words in error.message for words in _OF_THE_WAY) else f" ({error.message})"
        raise ClusterError(f"pod {pod} does not answer on port {port}{detail}: try again, or see `{status}`") from None
