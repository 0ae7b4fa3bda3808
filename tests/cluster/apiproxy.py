"""A way to the API server on which the test stands: it sees each request, and may answer, hold or cut it.

So a fault happens exactly where the test wants it, and everything behind is the real server.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

WRITES = ("POST", "PUT", "PATCH", "DELETE")
_SKIPPED_HEADERS = {"host", "connection", "transfer-encoding", "content-length", "content-encoding"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str

    @property
    def writes(self) -> bool:
        """Of an object: questions about permissions and Events do not count."""
        return self.method in WRITES and not self.path.endswith(("selfsubjectaccessreviews", "/events"))


@dataclass(frozen=True)
class Answer:
    """Instead of the server's."""

    status: int
    reason: str

    def body(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": self.status,
            "reason": self.reason,
            "message": f"the test says {self.reason}",
        }


@dataclass
class ApiProxy:
    """`before` may answer in the server's place; `after` sees what the server has answered, before the client does."""

    port: int = 0
    before: Callable[[Request], Answer | None] = lambda request: None
    after: Callable[[Request], None] = lambda request: None
    requests: list[Request] = field(default_factory=list)
    _watches: set[asyncio.Task[Any]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "proxied.conf"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "diffcache-test", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "diffcache-test",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.writes]

    def cut_watches(self) -> int:
        """Ends every open watch in the middle. Returns how many."""
        assert self._loop is not None
        watches = list(self._watches)
        for watch in watches:
            self._loop.call_soon_threadsafe(watch.cancel)
        return len(watches)


@contextmanager
def api_proxy(kubeconfig: Path) -> Iterator[ApiProxy]:
    """Listens on 127.0.0.1 until left."""
    proxy, started, stop = ApiProxy(), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(proxy, kubeconfig, started, stop)), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield proxy
    finally:
        stop.set()
        thread.join(30)


async def _serve(proxy: ApiProxy, kubeconfig: Path, started: threading.Event, stop: threading.Event) -> None:
    server, tls, headers = _credentials(kubeconfig)
    proxy._loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def handle(incoming: web.Request) -> web.StreamResponse:
            request = Request(incoming.method, incoming.path)
            proxy.requests.append(request)
            answer = proxy.before(request)
            if answer is not None:
                return web.json_response(answer.body(), status=answer.status)
            passed = {
                k: v for k, v in incoming.headers.items() if k.lower() not in {*_SKIPPED_HEADERS, "authorization"}
            }
            body = await incoming.read() or None
            url = server + incoming.raw_path
            async with session.request(incoming.method, url, headers=passed | headers, data=body) as upstream:
                if "watch=true" in incoming.query_string:
                    return await _stream(proxy, incoming, upstream)
                answered = await upstream.read()
                proxy.after(request)
                kept = {k: v for k, v in upstream.headers.items() if k.lower() not in _SKIPPED_HEADERS}
                return web.Response(status=upstream.status, headers=kept, body=answered)

        app = web.Application(client_max_size=2**25)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        started.set()
        await asyncio.to_thread(stop.wait)
        await runner.cleanup()


async def _stream(proxy: ApiProxy, incoming: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, headers={"Content-Type": "application/json"})
    await response.prepare(incoming)
    task = asyncio.current_task()
    assert task is not None
    proxy._watches.add(task)
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
    except (asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
        if incoming.transport is not None:
            incoming.transport.abort()
    finally:
        proxy._watches.discard(task)
    return response


def _credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext, dict[str, str]]:
    """Server, TLS with the user's certificate, and the header of a token."""
    config = yaml.safe_load(kubeconfig.read_text())
    chosen = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == chosen["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == chosen["user"])
    with tempfile.TemporaryDirectory() as folder:
        tls = ssl.create_default_context(cafile=_file(cluster, "certificate-authority", Path(folder)))
        if certificate := _file(user, "client-certificate", Path(folder)):
            tls.load_cert_chain(certificate, _file(user, "client-key", Path(folder)))
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    return cluster["server"], tls, headers


def _file(section: dict[str, str], key: str, folder: Path) -> str | None:
    """A file named in a kubeconfig, or written from its inline data."""
    if key in section:
        return section[key]
    if f"{key}-data" not in section:
        return None
    path = folder / key
    path.write_bytes(base64.b64decode(section[f"{key}-data"]))
    return str(path)
