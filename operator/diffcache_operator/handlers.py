"""Everything that kopf calls. A change of anything only says whose reconcile is due.

The handlers are coroutines: kopf calls any other function in a thread, and the queue belongs to the event loop.
"""

from __future__ import annotations

from typing import Any

import kopf

from diffcache_core.names import CACHE_LABEL, GROUP, PLURAL, VERSION
from diffcache_operator.queue import Queue

CHILDREN = (
    ("apps", "v1", "statefulsets"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("", "v1", "serviceaccounts"),
    ("", "v1", "pods"),
    ("", "v1", "persistentvolumeclaims"),
)


def registry_for(queue: Queue) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def log_in(**arguments: Any) -> kopf.ConnectionInfo | None:
        """Called again whenever the API server refuses a token: those of a pod are replaced now and then.

        No coroutine: it reads files and may call a program that logs in, and touches nothing of ours.
        """
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_resource(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.add(str(namespace), str(name))

    async def on_child(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        if labels[CACHE_LABEL]:  # anybody may label things
            queue.add(str(namespace), labels[CACHE_LABEL])

    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, labels={CACHE_LABEL: kopf.PRESENT}, registry=registry)(on_child)
    return registry


def settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # our events say when a resource turns, not what was logged
    chosen.scanning.disabled = True  # kinds and namespaces are known; a Role of one namespace could not scan
    # Else kopf kills the process ten minutes after its own end, and we go on when a CRD that was deleted comes back.
    chosen.process.ultimate_exiting_timeout = None
    chosen.watching.chunk_size = 200  # of the first listing, so that thousands of pods do not arrive at once
    for group, version, plural in CHILDREN:
        chosen.watching.label_selectors[group, version, plural] = CACHE_LABEL
    return chosen
