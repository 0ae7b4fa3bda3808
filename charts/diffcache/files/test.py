"""`helm test`: makes a DiffusionCache, waits until it is ready, draws one picture through its Service, and deletes it.

Runs in the serving image, which has the client, and talks to the API server with what Python brings.
"""

# ruff: noqa: S310, T201
import json
import os
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import diffcache

NAMESPACE = os.environ["NAMESPACE"]
TIMEOUT = float(os.environ["TIMEOUT_SECONDS"])
PICTURE_SECONDS = 60.0  # of four steps at 64 x 64, about one second on a CPU
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CACHES = f"https://kubernetes.default.svc/apis/diffcache.io/v1alpha1/namespaces/{NAMESPACE}/diffusioncaches"
UNSEEN = "no operator has looked at it"
ADVICE = f"does the operator's pod run, and does it watch namespace {NAMESPACE}?"

CACHE = {
    "apiVersion": "diffcache.io/v1alpha1",
    "kind": "DiffusionCache",
    "metadata": {
        "generateName": "helm-test-",
        "ownerReferences": [
            # should this program be killed: what it made goes with its pod
            {"apiVersion": "v1", "kind": "Pod", "name": os.environ["POD_NAME"], "uid": os.environ["POD_UID"]}
        ],
    },
    "spec": {
        "model": {"source": "bundled://emoji", "steps": 4},
        "serving": {
            "resources": json.loads(os.environ["SERVING_RESOURCES"], parse_float=str),
            "pod": json.loads(os.environ["SERVING_POD"]),
        },
        "cache": {"capacity": "64Mi", "store": {"volume": {"size": "1Gi"}}},
        "index": {"type": "Lite"},
    },
}


class Failed(Exception):
    """The message says what went wrong."""


def ask(method: str, url: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
    request.add_header("Content-Type", "application/json")
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=10, context=tls) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {url}: {error.code}: {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise Failed(f"{method} {url}: {error}") from None


def readiness(cache: dict[str, Any]) -> tuple[bool, str]:
    """Whether it is ready, and what there is to say about it."""
    status = cache.get("status", {})
    if status.get("observedGeneration") != cache["metadata"]["generation"]:
        return False, UNSEEN
    ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), None)
    if ready is None:
        return False, "has no condition Ready"
    return ready["status"] == "True", f"Ready is {ready['status']}: {ready.get('reason')}: {ready.get('message')}"


def wait_until_ready(name: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    said = ""
    while True:
        ready, message = readiness(ask("GET", f"{CACHES}/{name}"))
        if message != said:
            print(message, flush=True)
            said = message
        if ready:
            return
        if time.monotonic() > deadline:
            hint = ADVICE if message == UNSEEN else "look at its pod, or raise the value test.timeoutSeconds"
            raise Failed(f"not ready within {TIMEOUT:.0f} s: {message}; {hint}")
        time.sleep(1)


def draw(name: str) -> None:
    target = f"{name}.{NAMESPACE}.svc:50051"
    try:
        with diffcache.Client(target) as client:
            picture = client.generate("red apple, noto style", timeout=PICTURE_SECONDS)
    except diffcache.GenerationError as error:
        raise Failed(f"{target}: {error}") from None
    print(f"{target} drew a picture of {picture.image.width} x {picture.image.height}: {picture.result}", flush=True)


def delete(name: str) -> None:
    try:
        ask("DELETE", f"{CACHES}/{name}")
    except Failed as error:  # it goes with the pod; what failed before says more
        print(f"not deleted: {error}", flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # so that `finally` runs
    name = ask("POST", CACHES, CACHE)["metadata"]["name"]
    print(f"made DiffusionCache {name} in namespace {NAMESPACE}", flush=True)
    try:
        wait_until_ready(name)
        draw(name)
    finally:
        delete(name)
    print("ok")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"failed: {error}")
