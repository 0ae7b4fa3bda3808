"""external.metrics.k8s.io out of what Prometheus has recorded: `server.py PROMETHEUS_URL CERTIFICATE KEY PORT`.

The standard library only: it runs in a pod of the tests. The API server has authenticated and authorized whoever asks,
and is the only one that reaches it there.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
METRICS = {
    "diffcache_backlog_seconds": "diffcache:backlog_seconds:sum",
    "diffcache_busy_replicas": "diffcache:busy_replicas:rate5m",
}
"""Names as autoscalers ask for them, and the recording rules."""


class NoMetric(Exception):
    """There is no such metric, or it has no value now: an autoscaler then leaves the count as it is."""


def expression(namespace: str, metric: str, selector: str) -> str:
    """`selector`: a=b,c=d. Raises NoMetric."""
    if metric not in METRICS:
        raise NoMetric(f"no metric {metric}: there are {', '.join(METRICS)}")
    wanted = [("namespace", namespace), *(pair.split("=", 1) for pair in selector.split(",") if pair)]
    return METRICS[metric] + "{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in wanted) + "}"


def read_value(prometheus: str, query: str) -> float:
    """Of the one series. Raises NoMetric."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError as error:
        raise NoMetric(f"Prometheus does not answer: {error}") from None
    if len(found) != 1:
        raise NoMetric(f"{len(found)} series for {query}")
    return float(found[0]["value"][1])


def value_list(metric: str, value: float, now: datetime) -> dict[str, Any]:
    item = {
        "metricName": metric,
        "metricLabels": {},
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": f"{round(value * 1000)}m",
    }
    return {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": [item]}


def discovery() -> dict[str, Any]:
    shape = {"singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{VERSION}",
        "resources": [{"name": name, **shape} for name in METRICS],
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    prometheus = ""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        try:
            if parts == ["healthz"]:
                self.answer(200, {})
            elif parts == ["apis", GROUP, VERSION]:
                self.answer(200, discovery())
            elif parts[:4] == ["apis", GROUP, VERSION, "namespaces"] and len(parts) == 6:
                selector = urllib.parse.parse_qs(url.query).get("labelSelector", [""])[0]
                value = read_value(self.prometheus, expression(parts[4], parts[5], selector))
                self.answer(200, value_list(parts[5], value, datetime.now(UTC)))
            else:
                raise NoMetric(url.path)
        except NoMetric as error:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self.answer(404, status | {"message": str(error)})

    def answer(self, code: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def serve(prometheus: str, certificate: str, key: str, port: int) -> ThreadingHTTPServer:
    """Listens; `serve_forever` of the result answers."""
    handler = type("Handler", (Handler,), {"prometheus": prometheus})
    server = ThreadingHTTPServer(("0.0.0.0", port), handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    # The handshake is the connection's own thread's: one that never begins it holds nobody up.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])).serve_forever()
