"""The calls of the API server that the operator needs."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.exceptions import DynamicApiError

from diffcache_core.names import API_VERSION, GROUP, KIND, MANAGER, PLURAL, SCALER, VERSION

JSON = dict[str, Any]

CALL_SECONDS = 30.0
"""Seconds of one call at most; then it fails and the caller tries again."""

PLURALS = {
    KIND: PLURAL,
    "StatefulSet": "statefulsets",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Service": "services",
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "Pod": "pods",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Event": "events",
    "Lease": "leases",
}


class ApiError(Exception):
    """The API server refused, or could not be reached (status 0). The text is the server's own message."""

    def __init__(self, status: int, message: str, what: str) -> None:
        super().__init__(message)
        self.status = status
        self.what = what  # "patch statefulsets in demo"


class Api:
    """Made by `connect`. Every method raises ApiError."""

    def __init__(self, dynamic: DynamicClient) -> None:
        self._dynamic = dynamic
        self.on_call: Callable[[str, int, float], None] = lambda verb, code, seconds: None
        """Called after every call with verb, HTTP status (0 if there was no answer) and seconds."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> JSON | None:
        """Returns the object, or None if there is none."""
        return await self._find(_path(api_version, kind, namespace, name))

    async def list(self, api_version: str, kind: str, namespace: str, **selectors: str) -> list[JSON]:
        """Returns the objects of a kind, selected by `label_selector` or `field_selector`."""
        return (await self._call("get", _path(api_version, kind, namespace), None, selectors))["items"]

    async def apply(self, body: JSON) -> None:
        """Applies an object (server-side apply). Fields that others set and `body` does not name stay."""
        metadata = body["metadata"]
        path = _path(body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"])
        content = "application/apply-patch+yaml"
        await self._call(
            "patch", path, body, {"field_manager": MANAGER, "force_conflicts": True, "content_type": content}
        )

    async def merge(self, api_version: str, kind: str, namespace: str, name: str, patch: JSON) -> None:
        path = _path(api_version, kind, namespace, name)
        content = "application/merge-patch+json"
        await self._call("patch", path, patch, {"field_manager": MANAGER, "content_type": content})

    async def replace_status(self, resource: JSON) -> JSON:
        """Replaces the whole `status`. Raises ApiError 409 if the resource changed since it was read."""
        metadata = resource["metadata"]
        path = _path(API_VERSION, KIND, metadata["namespace"], metadata["name"]) + "/status"
        return await self._call("put", path, resource, {"field_manager": MANAGER})

    async def scale(self, namespace: str, name: str, replicas: int, version: str) -> None:
        """Writes the replicas as the scaling loop. Raises ApiError 409 if the resource no longer has this `version`."""
        path = _path(API_VERSION, KIND, namespace, name) + "/scale"
        patch = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        content = "application/merge-patch+json"
        await self._call("patch", path, patch, {"field_manager": SCALER, "content_type": content})

    async def create(self, body: JSON) -> None:
        await self._call("post", _path(body["apiVersion"], body["kind"], body["metadata"]["namespace"]), body)

    async def replace(self, body: JSON) -> None:
        """Replaces an object. Raises ApiError 409 if it changed since it was read."""
        metadata = body["metadata"]
        path = _path(body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"])
        await self._call("put", path, body, {"field_manager": MANAGER})

    async def delete(self, body: JSON) -> None:
        """Deletes an object. Raises ApiError 409 if it changed since it was read."""
        metadata = body["metadata"]
        path = _path(body["apiVersion"], body["kind"], metadata["namespace"], metadata["name"])
        version = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
        await self._call("delete", path, {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": version})

    async def may(self, namespace: str, verb: str, resource: str, name: str = "") -> bool:
        """Returns whether the operator's account may `verb` this `resource`, given as `plural.group/subresource`.
        `name` limits the question to one object; an empty namespace means all."""
        plural, _, subresource = resource.partition("/")
        kind, _, group = plural.partition(".")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": kind, "subresource": subresource}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked | {"name": name}},
        }
        answer = await self._call("post", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        return bool(answer["status"].get("allowed"))

    async def serves_caches(self) -> bool:
        """Returns whether our CRD is installed, so that its kind can be listed and watched."""
        found = await self._find(f"/apis/{GROUP}/{VERSION}")
        return found is not None and any(one["name"] == PLURAL for one in found.get("resources", []))

    async def served_schema(self) -> JSON | None:
        """Returns the OpenAPI document of our group; None if the CRD is not installed."""
        return await self._find(f"/openapi/v3/apis/{GROUP}/{VERSION}")

    async def _find(self, path: str) -> JSON | None:
        try:
            return await self._call("get", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _call(
        self, verb: str, path: str, body: JSON | None = None, params: Mapping[str, Any] | None = None
    ) -> JSON:
        began, code = time.monotonic(), 0
        try:
            response = await self._dynamic.request(
                verb, path, body, serialize=False, _request_timeout=CALL_SECONDS, **(params or {})
            )
            answer = json.loads(await response.read())
            code = int(response.status)
            return answer
        except DynamicApiError as error:
            code = int(error.status or 0)
            raise ApiError(code, _message(error), _what(verb, path)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, f"{type(error).__name__}: {error}", _what(verb, path)) from None
        finally:
            self.on_call(verb, code, time.monotonic() - began)


@asynccontextmanager
async def connect() -> AsyncIterator[Api]:
    """Connects with the pod's ServiceAccount, or outside of a cluster with the user's kubeconfig."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
        configuration.client_session_kwargs = {"trust_env": False}  # the cluster's API server needs no proxy
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    async with client.ApiClient(configuration) as api_client:
        yield Api(DynamicClient(api_client))


def _path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{PLURALS[kind]}" + (f"/{name}" if name else "")


def _what(verb: str, path: str) -> str:
    """Describes a call for a person who must correct permissions: verb, object and namespace."""
    parts = path.split("/")
    if "namespaces" not in parts:
        return f"{verb} {path}"
    at = parts.index("namespaces")
    return f"{verb} {'/'.join(parts[at + 2 : at + 3] + parts[at + 4 :])} in namespace {parts[at + 1]}"


def _message(error: DynamicApiError) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason or error.body or "no message")
