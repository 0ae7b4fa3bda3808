"""An API server that can be listed and watched: enough for kopf, and for the whole operator, to run against it.

It keeps what it is sent, with versions and conflicts, and checks nothing. What an API server really does is tested on
one, in tests/cluster.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.operator.http_server import serving

JSON = dict[str, Any]
CACHES = "diffcache.io/v1alpha1"
KINDS = {
    "v1": {
        "pods": "Pod",
        "services": "Service",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "events": "Event",
        "namespaces": "Namespace",
    },
    "apps/v1": {"statefulsets": "StatefulSet"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},
    CACHES: {"diffusioncaches": "DiffusionCache"},
}


class SmallCluster:
    """`found`: objects by path. `calls`: (verb, path) of all writes, in order."""

    def __init__(self) -> None:
        self.found: dict[str, JSON] = {}
        self.calls: list[tuple[str, str]] = []
        self.serves_caches = True
        self._version = 0
        self._watches: list[tuple[web.Request, asyncio.Queue[JSON | None]]] = []
        self._told: list[tuple[int, str, JSON]] = []  # version, path, event

    def put(self, path: str, body: JSON, *, told: bool = True) -> JSON:
        self._version += 1
        before = self.found.get(path)
        status = {"status": before["status"]} if before and "status" in before and "status" not in body else {}
        metadata = body["metadata"] | {"resourceVersion": str(self._version)}
        metadata.setdefault("uid", f"uid-{path}")
        metadata.setdefault("generation", 1)
        made = self.found[path] = copy.deepcopy(body | status | {"metadata": metadata})
        if told:
            self._tell(path, "ADDED" if before is None else "MODIFIED", made)
        return made

    def remove(self, path: str) -> None:
        self._version += 1
        self._tell(path, "DELETED", self.found.pop(path))

    def drop_crd(self) -> None:
        """As `kubectl delete crd` ends: the objects go, the watches end, and the kind is not there any more."""
        for path in [path for path in self.found if f"/apis/{CACHES}/" in path]:
            self.remove(path)
        self.serves_caches = False
        for request, events in self._watches:
            if request.path.startswith(f"/apis/{CACHES}"):
                events.put_nowait(None)

    def _tell(self, path: str, kind: str, body: JSON) -> None:
        event = {"type": kind, "object": body}
        self._told.append((self._version, path, event))
        for request, events in self._watches:
            if _is_in(path, request.path):
                events.put_nowait(event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        group = next((name for name in KINDS if request.path.startswith(_root(name) + "/")), None)
        if group == CACHES and not self.serves_caches:
            return _refusal(404, "the server could not find the requested resource")
        if request.method != "GET":
            return await self._write(request)
        if request.path in self.found:
            return web.json_response(self.found[request.path])
        if group is not None and request.path.rpartition("/")[2] in KINDS[group]:
            return await self._watch(request) if "watch" in request.query else self._list(request)
        discovery = self._discovery(request.path)
        return web.json_response(discovery) if discovery is not None else _refusal(404, "not found")

    def _discovery(self, path: str) -> JSON | None:
        groups = [name for name in KINDS if "/" in name and (name != CACHES or self.serves_caches)]
        if path == "/api":
            return {"versions": ["v1"]}
        if path == "/apis":
            split = [name.split("/") for name in groups]
            return {
                "groups": [
                    {"name": group, "versions": [{"version": version}], "preferredVersion": {"version": version}}
                    for group, version in split
                ]
            }
        if path == f"/openapi/v3/apis/{CACHES}" and self.serves_caches:
            return _openapi()
        name = next((name for name in ["v1", *groups] if path == _root(name)), None)
        if name is None:
            return None
        verbs = ["get", "list", "watch", "patch", "create", "update", "delete"]
        return {
            "resources": [
                {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}
                for plural, kind in KINDS[name].items()
            ]
        }

    def _list(self, request: web.Request) -> web.Response:
        first, version = map(int, request.query.get("continue", f"0 {self._version}").split())
        last = first + int(request.query.get("limit", 10**9))
        found = [body for path, body in self.found.items() if _is_in(path, request.path)]
        more = {"continue": f"{last} {version}"} if last < len(found) else {}
        metadata = {"resourceVersion": str(version)} | more
        return web.json_response({"metadata": metadata, "items": found[first:last]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        events: asyncio.Queue[JSON | None] = asyncio.Queue()
        since = int(request.query.get("resourceVersion", self._version))
        for version, path, told in self._told:
            if version > since and _is_in(path, request.path):
                events.put_nowait(told)
        watch = (request, events)
        self._watches.append(watch)
        try:
            while (event := await events.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._watches.remove(watch)
        return response

    async def _write(self, request: web.Request) -> web.Response:
        path = request.path
        body = await request.json() if request.can_read_body else {}
        if path.endswith("selfsubjectaccessreviews"):
            return web.json_response(body | {"status": {"allowed": True}})
        self.calls.append((request.method, path))
        if request.method == "DELETE":
            if path not in self.found:
                return _refusal(404, "not found")
            self.remove(path)
            return web.json_response({"kind": "Status", "status": "Success"})
        if request.method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.found:
                return _refusal(409, "it exists already")
        whole = path.removesuffix("/status")
        before = self.found.get(whole)
        version = body["metadata"].get("resourceVersion")
        if request.method == "PUT" and before is None:
            return _refusal(404, "not found")
        if version is not None and before is not None and version != before["metadata"]["resourceVersion"]:
            return _refusal(409, "it was changed meanwhile")
        if before is not None:
            parts = {"status": body["status"]} if whole != path else body
            body = before | parts | {"metadata": before["metadata"] | body["metadata"]}
        return web.json_response(self.put(whole, body))


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _is_in(path: str, listed: str) -> bool:
    """Whether an object lies in what is listed: a plural of one namespace, or of all."""
    if path.rpartition("/")[0] == listed:
        return True
    root, _, plural = listed.rpartition("/")
    return path.startswith(f"{root}/namespaces/") and path.split("/")[-2] == plural


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": message}, status=status)


def _openapi() -> JSON:
    crd = yaml.safe_load((Path(__file__).parents[2] / "crds/diffusioncaches.diffcache.io.yaml").read_text())
    version = crd["spec"]["versions"][0]
    kind = {"group": "diffcache.io", "kind": "DiffusionCache", "version": version["name"]}
    schema = version["schema"]["openAPIV3Schema"] | {"x-kubernetes-group-version-kind": [kind]}
    return {"components": {"schemas": {"DiffusionCache": schema}}}


def cache_path(name: str, namespace: str = "demo") -> str:
    return f"/apis/{CACHES}/namespaces/{namespace}/diffusioncaches/{name}"


def cache(name: str, namespace: str = "demo", **spec: Any) -> JSON:
    return {
        "apiVersion": CACHES,
        "kind": "DiffusionCache",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"source": "bundled://emoji"}} | spec,
    }


@asynccontextmanager
async def running(cluster: SmallCluster, folder: Path) -> AsyncIterator[Path]:
    """Its kubeconfig, in `folder`."""
    async with serving(cluster.answer) as url:
        kubeconfig = folder / "kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "small",
            "clusters": [{"name": "small", "cluster": {"server": url}}],
            "users": [{"name": "small", "user": {"token": "none"}}],
            "contexts": [{"name": "small", "context": {"cluster": "small", "user": "small"}}],
        }
        kubeconfig.write_text(yaml.safe_dump(document))
        yield kubeconfig
