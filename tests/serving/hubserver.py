"""A hub on loopback: the endpoints of huggingface.co that fetching a model uses, over the files of a folder."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 65536


@dataclass
class Hub:
    """What it serves, how it behaves, and what it was asked for."""

    repo: str
    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str = ""  # who does not send it gets `refusal`
    refusal: tuple[int, str] = (401, "GatedRepo")  # status, X-Error-Code
    stall_in: str = ""  # a path of which only the first half is sent, until `go_on`
    url: str = ""
    downloads: list[str] = field(default_factory=list)  # paths, as their bodies are asked for
    half_sent: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        return None

    def _answer(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        api, resolve = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/"
        if not (path == api or path.startswith((api + "/", resolve))):
            self._refuse(404, "RepoNotFound")
        elif hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
            self._refuse(*hub.refusal)
        elif path == api or path.startswith(api + "/revision/"):
            commit = hub.revisions.get(path.removeprefix(api + "/revision/") if path != api else "main")
            if commit is None:
                self._refuse(404, "RevisionNotFound")
            else:
                self._send(json.dumps({"_id": "1", "id": hub.repo, "sha": commit, "siblings": []}).encode())
        elif path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in hub.files.items()
            ]
            self._send(json.dumps(tree).encode())
        else:
            commit, _, name = path.removeprefix(resolve).partition("/")
            if name not in hub.files:
                self._refuse(404, "EntryNotFound")
            else:
                self._send_file(name, commit)

    def _send_file(self, name: str, commit: str) -> None:
        hub, data = self.hub, self.hub.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        hub.downloads.append(name)
        half = len(data) // 2 if name == hub.stall_in else len(data)
        self.wfile.write(data[:half])
        if half < len(data):
            self.wfile.flush()
            hub.half_sent.set()
            hub.go_on.wait()
            self.wfile.write(data[half:])

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        return None  # clients are killed here


@contextmanager
def serving(hub: Hub, tls: ssl.SSLContext | None = None) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
