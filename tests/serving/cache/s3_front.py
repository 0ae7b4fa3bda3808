"""A real HTTP proxy in front of a real S3 server, which refuses what a test says."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Refuses = Callable[[str, str], int]
"""The status that a method and a path with its query are refused with; 0: they pass."""


def nothing(method: str, path: str) -> int:
    return 0


def bulk_deletions(method: str, path: str) -> int:
    """As Google's interoperability and others: there is no DeleteObjects."""
    return 501 if method == "POST" and path.partition("?")[2].startswith("delete") else 0


def deletions(method: str, path: str) -> int:
    """As a bucket whose credentials may not delete."""
    return 403 if method == "DELETE" or bulk_deletions(method, path) else 0


class S3Front:
    """Listens at `endpoint`, and hands on to `server` (http://HOST:PORT). A context manager."""

    def __init__(self, server: str, refuses: Refuses = nothing, tls: ssl.SSLContext | None = None) -> None:
        self.refuses = refuses
        self.asked: list[str] = []
        """METHOD and path of each request."""
        front, target = self, server.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                front.asked.append(f"{self.command} {self.path}")
                status = front.refuses(self.command, self.path)
                if status:
                    self._send(status, [], f"<Error><Code>Refused{status}</Code></Error>".encode())
                    return
                onward = http.client.HTTPConnection(target, timeout=30)
                try:  # the host stays the one that the signature is of
                    onward.request(self.command, self.path, body, dict(self.headers))
                    answer = onward.getresponse()
                    self._send(answer.status, answer.getheaders(), answer.read())
                finally:
                    onward.close()

            def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815  # http.server's names

            def log_message(self, *told: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
