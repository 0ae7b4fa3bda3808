"""All handlers that kopf calls. A change of any object only queues the reconcile of its resource.

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
        """Logs in. kopf calls it again whenever the API server refuses a token: a pod's tokens are replaced now and
        then.

        It is no coroutine, because it reads files, may run a login program, and does not use the queue.
        """
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_resource(namespace: str | None, name: str | None, **_: Any) -> None:
        queue.add(str(namespace), str(name))

    async def on_child(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        if labels[CACHE_LABEL]:  # anybody may set an empty label
            queue.add(str(namespace), labels[CACHE_LABEL])

    for group, version, plural in CHILDREN:
        kopf.on.event(group, version, plural, labels={CACHE_LABEL: kopf.PRESENT}, registry=registry)(on_child)
    return registry


def settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False  # we post our own events about conditions, instead of kopf's logs
    chosen.scanning.disabled = True  # kinds and namespaces are known; a Role of one namespace could not scan
    # Else kopf kills the process ten minutes after kopf ends. But we continue when a deleted CRD comes back.
    chosen.process.ultimate_exiting_timeout = None
    chosen.watching.chunk_size = (
        200  # objects per page of the first listing, so that thousands of pods do not arrive at once
    )
    for group, version, plural in CHILDREN:
        chosen.watching.label_selectors[group, version, plural] = CACHE_LABEL
    return chosen
