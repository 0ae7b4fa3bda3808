"""A few objects behind HTTP, with versions and conflicts: enough for the order of the operator's calls to be seen.

What an API server really does is tested on one, in tests/cluster.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio import client
from kubernetes.aio.dynamic import DynamicClient

from diffcache_core.names import METRICS_PORT
from diffcache_operator.clients.api import Api
from tests.operator.http_server import serving
from tests.operator.resources import UID

JSON = dict[str, Any]
ROOT = "/apis/diffcache.io/v1alpha1/namespaces/demo/diffusioncaches"
CACHE = f"{ROOT}/emoji"


class Objects:
    """By path. `calls`: (verb, path) of all writes, in order."""

    def __init__(self) -> None:
        self.found: dict[str, JSON] = {}
        self.calls: list[tuple[str, str]] = []
        self.events: list[JSON] = []
        self.refusal: tuple[int, str] | None = None  # of writes to /scale
        self.before_write: Callable[[str, str], None] = lambda verb, path: None
        self._version = 0

    def put(self, path: str, body: JSON) -> JSON:
        self._version += 1
        metadata = body["metadata"] | {"resourceVersion": str(self._version)}
        self.found[path] = copy.deepcopy(body | {"metadata": metadata})
        return self.found[path]

    @property
    def cache(self) -> JSON:
        return self.found[CACHE]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return self._read(request)
        body = await request.json()
        self.before_write(request.method, request.path)
        self.calls.append((request.method, request.path))
        if request.method == "POST":
            self.events.append(body)
            return web.json_response(body)
        _, _, subresource = request.path.partition(CACHE + "/")
        if subresource:
            return self._write_part(subresource, body)
        if request.method == "PATCH":
            live = self.found.get(request.path, {"metadata": {"uid": "x", "generation": 0}})
            metadata = live["metadata"] | body["metadata"]
            body = live | body | {"metadata": metadata | {"generation": metadata["generation"] + 1}}
        return web.json_response(self.put(request.path, body))

    def _read(self, request: web.Request) -> web.Response:
        if request.path in self.found:
            return web.json_response(self.found[request.path])
        if request.path.rpartition("/")[2] in ("pods", "persistentvolumeclaims", "events"):
            items = [one for path, one in self.found.items() if path.startswith(request.path + "/")]
            return web.json_response({"items": items})
        return web.json_response({"message": "not found"}, status=404)

    def _write_part(self, subresource: str, body: JSON) -> web.Response:
        if subresource == "scale" and self.refusal is not None:
            return web.json_response({"message": self.refusal[1]}, status=self.refusal[0])
        if body["metadata"]["resourceVersion"] != self.cache["metadata"]["resourceVersion"]:
            return web.json_response({"message": "it was changed"}, status=409)
        changed = copy.deepcopy(self.cache)
        if subresource == "status":
            changed["status"] = body["status"]
        else:
            changed["spec"].setdefault("serving", {})["replicas"] = body["spec"]["replicas"]
            changed["metadata"]["generation"] += 1
        return web.json_response(self.put(CACHE, changed))


def resource(**spec: Any) -> JSON:
    return {
        "apiVersion": "diffcache.io/v1alpha1",
        "kind": "DiffusionCache",
        "metadata": {"name": "emoji", "namespace": "demo", "uid": UID, "generation": 1},
        "spec": {"model": {"source": "bundled://emoji"}} | spec,
    }


def ready_pod(number: int, address: str) -> JSON:
    return {
        "metadata": {
            "name": f"emoji-{number}",
            "uid": f"pod-{number}",
            "labels": {"app.kubernetes.io/component": "serving", "controller-revision-hash": "one"},
            "ownerReferences": [{"kind": "StatefulSet", "name": "emoji", "uid": "set", "controller": True}],
        },
        "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@asynccontextmanager
async def api_of(objects: Objects) -> AsyncIterator[Api]:
    async with serving(objects.answer) as url, client.ApiClient(client.Configuration(host=url)) as api_client:
        yield Api(DynamicClient(api_client))


@asynccontextmanager
async def pod_metrics(address: str, text: Callable[[], str]) -> AsyncIterator[None]:
    """A pod that exports `text()`, at an address of this machine's own."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text())

    async with serving(answer, host=address, port=METRICS_PORT):
        yield
